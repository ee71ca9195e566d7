/** What a person does: the store, the HTTP calls and the socket brought together. */

import { Socket } from "/web/socket.js";

const PAGE = 50;
const MAX_RELOAD = 200; // the server's largest page
const USERS_PAGE = 200;
const MAX_USERS = 1_000;
const ACK_WITHIN_MS = 25_000; // the server gives up after 20 s and says so
const RETRY_AFTER_MS = 500;
const MAX_TRIES = 6;
const TELL_TYPING_EVERY_MS = 3_000; // the server forgets it after 6 s
const NOBODY_MINDS = new Set(["ping", "typing.start", "typing.stop"]);

/** 128 random bits. Not `crypto.randomUUID`, which plain http:// on a local network does not have. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A conversation's name as the fields by which events say where they go. */
function addressOf(name) {
  const [kind, id] = name.split(":");
  return kind === "room" ? { room_id: Number(id) } : { receiver_id: Number(id) };
}

export class Chat {
  #socket = null;
  #knowing = null;
  #pause = null;

  /** `hears.message(message)` for what others say; `hears.problem(text)`; `hears.ended()` when the token is not good. */
  constructor(store, api, hears) {
    this.store = store;
    this.api = api;
    this.hears = hears;
  }

  async start() {
    const { store, api } = this;
    store.me = await api.me();
    store.restoreOutbox();
    this.#socket = new Socket(api.token, {
      event: (name, data) => this.#events[name]?.(data),
      link: (state, retryAtMs) => this.#linked(state, retryAtMs),
      refused: () => this.hears.ended(),
      failed: () => api.me().catch(() => {}), // a token that is no longer good shows itself as 401
    });
    await Promise.all([this.#loadRooms(), this.loadPeople(), api.unread().then((counts) => store.counts(counts))]);
  }

  reconnect() {
    this.#socket?.connect();
  }

  // --- rooms and people -------------------------------------------------------------------------------------------

  async #loadRooms() {
    const rooms = await this.api.rooms();
    this.store.rooms = new Map(rooms.map((room) => [room.id, room]));
    this.store.changed();
  }

  async loadPeople() {
    const people = new Map();
    for (let skip = 0; skip < MAX_USERS; skip += USERS_PAGE) {
      const page = await this.api.users(skip, USERS_PAGE);
      for (const person of page) people.set(person.id, person);
      if (page.length < USERS_PAGE) break;
    }
    this.store.people = people;
    this.store.changed();
  }

  /** Somebody signed up after the list was read. */
  #know(ids) {
    if (this.#knowing || ids.every((id) => this.store.people.has(id))) return;
    this.#knowing = this.loadPeople()
      .catch(() => {})
      .finally(() => (this.#knowing = null));
  }

  async createRoom(name, memberIds) {
    const room = await this.api.createRoom(name, memberIds);
    this.store.rooms.set(room.id, room);
    this.store.changed();
    return `room:${room.id}`;
  }

  async #loadMembers(conversation) {
    const members = await this.api.members(conversation.id);
    conversation.members = members.map(({ user_id }) => user_id);
    this.#know(conversation.members);
    this.store.changed();
  }

  // --- conversations ----------------------------------------------------------------------------------------------

  /** Show a conversation (null: none). */
  open(name) {
    const { store } = this;
    store.current = name;
    store.changed();
    if (name === null) return;
    const conversation = store.conversation(name);
    store.markRead(conversation);
    if (!conversation.loaded) this.load(conversation);
    if (conversation.kind === "room" && !conversation.members) this.#loadMembers(conversation).catch(() => {});
  }

  /** Read the newest messages, in place of what is there. */
  async load(conversation) {
    if (conversation.loading) {
      conversation.again = true;
      return;
    }
    const limit = Math.min(MAX_RELOAD, Math.max(PAGE, conversation.messages.size));
    await this.#read(conversation, { limit }, { replace: true });
    if (conversation.again) {
      conversation.again = false;
      await this.load(conversation);
    }
  }

  async loadOlder(conversation) {
    if (!conversation.loaded || conversation.loading || conversation.complete || conversation.problem) return;
    const before = this.store.thread(conversation)[0]?.seq;
    if (before) await this.#read(conversation, { limit: PAGE, before }, {});
  }

  async #read(conversation, query, how) {
    Object.assign(conversation, { loading: true, problem: null });
    conversation.touched.clear();
    this.store.changed();
    try {
      const messages = await this.api.history(conversation.name, query);
      this.store.page(conversation, messages, how);
      Object.assign(conversation, { loaded: true, complete: messages.length < query.limit });
      this.#know([...new Set(messages.map(({ sender_id }) => sender_id))]);
    } catch (error) {
      conversation.problem = error.message;
    }
    conversation.loading = false;
    this.store.changed();
  }

  /** Something was missed. What is not on the screen is read again when it is opened. */
  #heal(conversation) {
    if (conversation.loading || conversation.name === this.store.current) this.load(conversation);
    else Object.assign(conversation, { loaded: false, messages: new Map() });
  }

  #missed(conversation) {
    this.#heal(conversation);
    this.api.unread().then((counts) => this.store.counts(counts)).catch(() => {});
  }

  // --- messages ---------------------------------------------------------------------------------------------------

  send(conversation, content) {
    const sent = { client_msg_id: randomId(), name: conversation.name, content, state: "sending", at: Date.now() };
    this.store.queue(sent);
    this.#transmit(sent);
  }

  retry(sent) {
    Object.assign(sent, { state: "sending", problem: null, tries: 0 });
    this.store.saveOutbox();
    this.store.changed();
    this.#transmit(sent);
  }

  discard(sent) {
    this.store.settle(sent.client_msg_id);
  }

  async edit(message, content) {
    this.store.change(await this.api.edit(message.id, content));
  }

  async delete(message) {
    await this.api.delete(message.id);
    this.store.change({ ...message, content: "", deleted: true });
  }

  /** Without a connection, or while the server wants a pause, it stays in the outbox, and goes with all of it later. */
  #transmit(sent) {
    if (this.#pause) return;
    this.#rest(sent);
    const { content, client_msg_id } = sent;
    if (!this.#socket.send("message.send", { ...addressOf(sent.name), content, client_msg_id })) return;
    sent.timer = setTimeout(() => this.#fail(sent, "No answer from the server."), ACK_WITHIN_MS);
  }

  /** What is written and not sent yet: the others are told now and then that it grows, and at once that it is gone. */
  typing(conversation, on) {
    const told = conversation.toldTypingAt;
    if (on ? Date.now() < told + TELL_TYPING_EVERY_MS : !told) return;
    conversation.toldTypingAt = on ? Date.now() : 0;
    this.#socket?.send(on ? "typing.start" : "typing.stop", addressOf(conversation.name));
  }

  #transmitAll() {
    for (const sent of this.store.outbox) if (sent.state === "sending" && !sent.timer) this.#transmit(sent);
  }

  /** No longer wait for an answer. */
  #rest(sent) {
    clearTimeout(sent.timer);
    sent.timer = null;
  }

  #fail(sent, problem) {
    this.#rest(sent);
    Object.assign(sent, { state: "failed", problem });
    this.store.saveOutbox();
    this.store.changed();
  }

  #refused({ message, retryable, retry_after_ms, client_msg_id, context_event }) {
    const sent = this.store.outbox.find((one) => client_msg_id && one.client_msg_id === client_msg_id);
    if (!sent) {
      if (!NOBODY_MINDS.has(context_event)) this.hears.problem(message);
      return;
    }
    sent.tries = (sent.tries ?? 0) + 1;
    if (!retryable || sent.tries >= MAX_TRIES) return this.#fail(sent, message);
    this.#rest(sent);
    const waitMs = (retry_after_ms ?? RETRY_AFTER_MS) * 2 ** (sent.tries - 1) * (1 + Math.random());
    this.#pause ??= setTimeout(() => { // for all of them, so that they stay in order
      this.#pause = null;
      this.#transmitAll();
    }, waitMs);
  }

  // --- the socket's side ------------------------------------------------------------------------------------------

  #linked(state, retryAtMs) {
    this.store.link = { state, retryAtMs };
    if (state !== "online") for (const sent of this.store.outbox) this.#rest(sent);
    this.store.changed();
  }

  #events = {
    "session.ready": ({ conversations = [] }) => {
      for (const conversation of this.store.ready(conversations)) this.#heal(conversation);
      this.#transmitAll();
      this.#loadRooms().catch(() => {});
    },
    "message.ack": (data) => this.store.acked(data),
    "message.receive": (message) => {
      const conversation = this.store.conversation(this.store.nameOf(message));
      if (this.store.receive(message)) this.#missed(conversation);
      if (message.sender_id !== this.store.me.id) this.hears.message(message);
      this.#know([message.sender_id]);
    },
    "typing.start": (data) => {
      this.store.typing(data, true);
      this.#know([data.sender_id]);
    },
    "typing.stop": (data) => this.store.typing(data, false),
    "message.update": (data) => this.#changed(data),
    "message.delete": (data) => this.#changed(data),
    "room.created": ({ id, name, is_group, owner_id, member_ids = [], seq = 1 }) => {
      const member_count = member_ids.length;
      this.store.rooms.set(id, { id, name, is_group, owner_id, member_count, ...this.store.rooms.get(id) });
      const conversation = this.store.conversation(`room:${id}`);
      conversation.members = member_ids;
      this.store.gap(conversation, seq);
      this.#know(member_ids);
    },
    "room.member_joined": ({ room_id, user_ids, seq }) => {
      this.#membership(room_id, seq);
      this.#know(user_ids);
    },
    "room.member_left": ({ room_id, user_ids, seq }) => {
      if (user_ids.includes(this.store.me.id)) this.store.forget(`room:${room_id}`);
      else this.#membership(room_id, seq);
    },
    error: (data) => this.#refused(data),
  };

  #changed(data) {
    const conversation = this.store.conversation(this.store.nameOf(data));
    this.store.change(data);
    if (data.seq && this.store.gap(conversation, data.seq)) this.#missed(conversation);
  }

  #membership(roomId, seq) {
    const conversation = this.store.conversation(`room:${roomId}`);
    this.#loadRooms().catch(() => {});
    if (conversation.members) this.#loadMembers(conversation).catch(() => {});
    if (seq && this.store.gap(conversation, seq)) this.#missed(conversation);
  }
}
