/**
 * What the page knows, and how the server's events change it. No network and no DOM.
 *
 * A conversation has the name by which the contract calls it: `room:2`, `user:7`. Its `head` is the number of the last
 * log entry that was seen (null: unknown). A number that skips one means that something was missed: `gap` tells.
 */

const MAX_REMEMBERED = 500;
const TYPING_EXPIRES_MS = 6_000; // the end may get lost on its way

export class Store {
  #listeners = [];
  #scheduled = false;

  me = null;
  people = new Map();
  rooms = new Map();
  conversations = new Map();
  /** What is not known to have arrived: `{client_msg_id, name, content, state: "sending" | "failed", problem, at}`. */
  outbox = [];
  /** The name of the conversation on the screen, and whether anybody can see it. */
  current = null;
  watched = true;
  link = { state: "connecting", retryAtMs: null };

  subscribe(listener) {
    this.#listeners.push(listener);
  }

  /** Have every view look again, once, after whatever is running now. */
  changed() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      for (const listener of this.#listeners) listener();
    });
  }

  conversation(name) {
    let found = this.conversations.get(name);
    if (!found) {
      const [kind, id] = name.split(":");
      const messages = new Map();
      found = { name, kind, id: Number(id), head: null, unread: 0, messages, touched: new Set(), members: null };
      Object.assign(found, { loaded: false, loading: false, complete: false, problem: null, draft: "" });
      Object.assign(found, { typists: new Map(), toldTypingAt: 0 });
      this.conversations.set(name, found);
    }
    return found;
  }

  /** The conversation that a message belongs to, as this user calls it. */
  nameOf({ room_id, sender_id, receiver_id }) {
    if (room_id != null) return `room:${room_id}`;
    return `user:${sender_id === this.me.id ? receiver_id : sender_id}`;
  }

  person(id) {
    return this.people.get(id) ?? { id, full_name: null, email: null };
  }

  nameOfPerson(id) {
    const { full_name, email } = this.person(id);
    return full_name || email?.split("@")[0] || `User ${id}`;
  }

  titleOf({ kind, id }) {
    return kind === "room" ? (this.rooms.get(id)?.name ?? `Room ${id}`) : this.nameOfPerson(id);
  }

  get totalUnread() {
    return [...this.conversations.values()].reduce((sum, { unread }) => sum + unread, 0);
  }

  /** Messages in the order of the log. */
  thread(conversation) {
    return [...conversation.messages.values()].sort((a, b) => a.seq - b.seq);
  }

  // --- what the server says ---------------------------------------------------------------------------------------

  /** After `session.ready`: counts and heads as they are now. Returns those whose messages may lack something. */
  ready(list) {
    const now = new Map(list.map((one) => [one.conversation, one]));
    for (const name of now.keys()) this.conversation(name);
    const stale = [];
    for (const conversation of this.conversations.values()) {
      const { seq, unread } = now.get(conversation.name) ?? { seq: conversation.head ?? 0, unread: 0 };
      if (conversation.loading || (conversation.loaded && seq > conversation.head)) stale.push(conversation);
      conversation.head = seq;
      conversation.unread = this.#bounded(conversation, unread);
      this.#markIfOpen(conversation);
    }
    this.changed();
    return stale;
  }

  /** `chat/unread`. What this browser has shown before is not counted until the heads are known. */
  counts({ users, rooms }) {
    const set = (name, unread) => {
      const conversation = this.conversation(name);
      if (conversation.head !== null) conversation.unread = this.#bounded(conversation, unread);
      else if (!(name in this.#seen)) conversation.unread = unread;
      this.#markIfOpen(conversation);
    };
    for (const [id, unread] of Object.entries(users)) set(`user:${id}`, unread);
    for (const [id, unread] of Object.entries(rooms)) set(`room:${id}`, unread);
    this.changed();
  }

  /** Any event with a number of the log. Returns whether entries are missing before it. */
  gap(conversation, seq) {
    const missing = conversation.head !== null && seq > conversation.head + 1;
    conversation.head = Math.max(conversation.head ?? 0, seq);
    this.changed();
    return missing;
  }

  /** `message.receive`. Returns whether entries are missing before it. */
  receive(message) {
    const conversation = this.conversation(this.nameOf(message));
    const isNew = message.seq > (conversation.head ?? 0);
    const missing = this.gap(conversation, message.seq);
    if (message.sender_id === this.me.id) this.settle(message.client_msg_id);
    else if (isNew) conversation.unread += 1;
    this.typing(message, false);
    this.#put(conversation, message);
    this.#markIfOpen(conversation);
    return missing;
  }

  /** `typing.start`, `typing.stop`. Somebody types until the end of it, a message, or a while without another start. */
  typing(data, on) {
    const { typists } = this.conversation(this.nameOf(data));
    const id = data.sender_id;
    clearTimeout(typists.get(id));
    if (on) typists.set(id, setTimeout(() => typists.delete(id) && this.changed(), TYPING_EXPIRES_MS));
    else if (!typists.delete(id)) return;
    this.changed();
  }

  /** `message.ack`: what waited in the outbox is a message now. The head moves when its `message.receive` comes. */
  acked({ message_id, seq, timestamp, client_msg_id }) {
    const sent = this.settle(client_msg_id);
    if (!sent) return;
    const conversation = this.conversation(sent.name);
    const { content } = sent;
    const message = { id: message_id, content, sender_id: this.me.id, timestamp, seq, client_msg_id };
    if (!conversation.messages.has(message_id)) this.#put(conversation, message);
    this.changed();
  }

  /** `message.update`, `message.delete`, and the answer of a PUT; an event's `seq` is the change's own. */
  change(data) {
    const conversation = this.conversation(this.nameOf(data));
    const id = data.message_id ?? data.id;
    const before = conversation.messages.get(id);
    if (!before && !conversation.loading) return;
    const { content, edited_at, deleted } = data;
    this.#put(conversation, { ...(before ?? { ...data, id, seq: data.message_seq }), content, edited_at, deleted });
    this.changed();
  }

  /** A page of history. What came in or changed while it was on its way is newer than it, and stays. */
  page(conversation, messages, { replace = false } = {}) {
    const live = [...conversation.messages.values()].filter(({ id }) => conversation.touched.has(id));
    if (replace) conversation.messages = new Map();
    for (const message of [...messages, ...live]) {
      conversation.messages.set(message.id, message);
      if (message.sender_id === this.me.id) this.settle(message.client_msg_id);
    }
    const oldest = messages[0]?.seq ?? 0;
    for (const { id, seq } of live) if (seq < oldest) conversation.messages.delete(id); // its page comes later
    conversation.head ??= messages.at(-1)?.seq ?? 0;
    this.#markIfOpen(conversation);
    this.changed();
  }

  forget(name) {
    this.rooms.delete(Number(name.split(":")[1]));
    this.conversations.delete(name);
    this.outbox = this.outbox.filter((one) => one.name !== name);
    if (this.current === name) this.current = null;
    this.saveOutbox();
    this.changed();
  }

  #bounded({ name, head }, unread) {
    return Math.min(unread, Math.max(0, head - (this.#seen[name] ?? 0)));
  }

  #put(conversation, message) {
    if (!conversation.loaded && !conversation.loading) return;
    conversation.messages.set(message.id, message);
    conversation.touched.add(message.id);
  }

  // --- what was read ----------------------------------------------------------------------------------------------
  // The server keeps the markers once clients can move them; until then this browser remembers what it has shown.

  markRead(conversation) {
    conversation.unread = 0;
    if (!conversation.head || this.#seen[conversation.name] === conversation.head) return;
    const { [conversation.name]: _, ...others } = this.#seen; // the one shown last stands last
    const entries = [...Object.entries(others), [conversation.name, conversation.head]].slice(-MAX_REMEMBERED);
    localStorage.setItem(this.#seenKey, JSON.stringify(Object.fromEntries(entries)));
  }

  #markIfOpen(conversation) {
    if (conversation.name === this.current && this.watched) this.markRead(conversation);
  }

  get #seenKey() {
    return `fastsock.seen.${this.me.id}`;
  }

  get #seen() {
    return JSON.parse(localStorage.getItem(this.#seenKey) ?? "{}");
  }

  // --- what waits to be sent: kept over a reload; sending it twice is safe, since its client_msg_id stays -----------

  queue(sent) {
    this.outbox.push(sent);
    this.saveOutbox();
    this.changed();
  }

  /** Take a message out of the outbox: it arrived, or is not wanted any more. */
  settle(clientMsgId) {
    const sent = this.outbox.find((one) => one.client_msg_id === clientMsgId);
    if (!sent) return null;
    clearTimeout(sent.timer);
    this.outbox = this.outbox.filter((one) => one !== sent);
    this.saveOutbox();
    this.changed();
    return sent;
  }

  saveOutbox() {
    const kept = this.outbox.map(({ timer, ...rest }) => rest);
    sessionStorage.setItem("fastsock.outbox", JSON.stringify({ user: this.me.id, kept }));
  }

  restoreOutbox() {
    const { user, kept } = JSON.parse(sessionStorage.getItem("fastsock.outbox") ?? "{}");
    if (user === this.me.id) this.outbox = kept;
  }
}
