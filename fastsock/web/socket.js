/**
 * The live half of the contract: one WebSocket that comes back by itself.
 *
 * Reconnects wait a random time between 0 and a bound that doubles (full jitter), so that a server which restarts is not
 * stormed. A `ping` that is not answered in time ends a connection of which the browser has not yet noticed the death.
 */

const FIRST_BOUND_MS = 1_000;
const LAST_BOUND_MS = 30_000;
const READY_WITHIN_MS = 15_000;
const PONG_WITHIN_MS = 10_000;
const HEARTBEAT_S = 20;

const SIGNED_OUT = new Set([1008, 4001, 4002]); // a new token is needed first
const REPLACED = 4003; // too many windows of one person: coming back would only push out the next

export class Socket {
  #token;
  #hears;
  #socket = null;
  #attempt = 0;
  #retryTimer = null;
  #watchdog = null;
  ready = false;

  /**
   * `hears.event(name, data)` for every frame; `hears.link(state, retryAtMs)` with connecting, online, waiting, replaced;
   * `hears.refused()` when the token is no longer good; `hears.failed()` when a connection ended before it was ready.
   */
  constructor(token, hears) {
    this.#token = token;
    this.#hears = hears;
    this.connect();
  }

  /** Connect now, however long the wait would have been. */
  connect() {
    clearTimeout(this.#retryTimer);
    if (this.#socket) return;
    this.#hears.link("connecting", null);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/api/v1/ws/chat?token=${encodeURIComponent(this.#token)}`);
    this.#socket = socket;
    this.#watch(READY_WITHIN_MS, () => this.#lost(1006));
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.#socket && this.#lost(code);
  }

  /** Whether the frame was handed to the network; whether it arrived, only an answer tells. */
  send(event, data) {
    if (!this.ready) return false;
    this.#socket.send(JSON.stringify({ event, data }));
    return true;
  }

  #receive({ event, data }) {
    if (event === "session.ready") {
      this.ready = true;
      this.#attempt = 0;
      this.heartbeatMs = (data.heartbeat_s ?? HEARTBEAT_S) * 1_000;
      this.#hears.link("online", null);
    }
    if (this.ready) this.#watch(this.heartbeatMs, () => this.#ping());
    this.#hears.event(event, data ?? {});
  }

  #ping() {
    this.send("ping", { at: Date.now() });
    this.#watch(PONG_WITHIN_MS, () => this.#lost(1006));
  }

  #lost(code) {
    const wasReady = this.ready;
    this.#drop();
    if (SIGNED_OUT.has(code)) return this.#hears.refused();
    if (code === REPLACED) return this.#hears.link("replaced", null);
    const bound = Math.min(LAST_BOUND_MS, FIRST_BOUND_MS * 2 ** this.#attempt++);
    const waitMs = Math.random() * bound;
    this.#retryTimer = setTimeout(() => this.connect(), waitMs);
    this.#hears.link("waiting", Date.now() + waitMs);
    if (!wasReady) this.#hears.failed();
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.ready = false;
    clearTimeout(this.#watchdog);
    socket?.close();
  }

  #watch(ms, then) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(then, ms);
  }
}
