/** The HTTP half of the contract. Every failure is an ApiError whose message can be shown to a person. */

const BASE = "/api/v1";
const TIMEOUT_MS = 30_000; // the server itself gives up after 20 s and says so

export class ApiError extends Error {
  /** `status` is 0 where no answer came. */
  constructor(message, { status = 0, code = "unreachable" } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** A server's text, which is lower case and may have no full stop, as a sentence. */
export function sentence(text) {
  const trimmed = String(text).trim();
  if (!trimmed) return "Something went wrong.";
  const capital = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}

export class Api {
  token = null;
  /** Called when the server no longer accepts the token. */
  onUnauthorised = () => {};

  signUp = (email, password, fullName) =>
    this.#json("POST", "/auth/signup", { email, password, full_name: fullName || null });

  async signIn(email, password) {
    const body = new URLSearchParams({ username: email, password });
    return (await this.#request("POST", "/auth/login/access-token", { body })).access_token;
  }

  me = () => this.#request("GET", "/users/me");
  users = (skip, limit) => this.#request("GET", `/users/?skip=${skip}&limit=${limit}`);
  rooms = () => this.#request("GET", "/chat/rooms");
  createRoom = (name, memberIds) => this.#json("POST", "/chat/rooms", { name, member_ids: memberIds });
  members = (roomId) => this.#request("GET", `/chat/rooms/${roomId}/members`);
  unread = () => this.#request("GET", "/chat/unread");
  edit = (messageId, content) => this.#json("PUT", `/chat/messages/${messageId}`, { content });
  delete = (messageId) => this.#request("DELETE", `/chat/messages/${messageId}`);

  /** A page of `room:2` or `user:7`, oldest first; the newest one unless `before` is given. */
  history(conversation, { limit, before = null }) {
    const query = new URLSearchParams({ limit, ...(before === null ? {} : { before }) });
    return this.#request("GET", `/chat/history/${conversation.replace(":", "/")}?${query}`);
  }

  #json(method, path, data) {
    return this.#request(method, path, { body: JSON.stringify(data), headers: { "Content-Type": "application/json" } });
  }

  async #request(method, path, { body, headers = {} } = {}) {
    const token = this.token;
    if (token) headers.Authorization = `Bearer ${token}`;
    let response;
    let answer;
    try {
      response = await fetch(BASE + path, { method, body, headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
      answer = await response.json().catch(() => null);
    } catch {
      throw new ApiError("The server cannot be reached. Check your connection and try again.");
    }
    if (response.ok) return answer;
    if (response.status === 401 && token && token === this.token) this.onUnauthorised();
    const detail = answer?.detail;
    const text = Array.isArray(detail) ? detail.map((one) => one.msg).join("; ") : detail;
    const failure = { status: response.status, code: answer?.code ?? "unknown" };
    throw new ApiError(sentence(text ?? `the server answered ${response.status}`), failure);
  }
}
