/** One conversation: its messages, and the place to write the next one. */

import { sentence } from "/web/api.js";
import { $, avatar, el, paintAvatar, prose, reconcile, setText, show } from "/web/dom.js";

const SAME_BREATH_MS = 5 * 60_000; // what somebody says within it stands under one name and time
const AT_END_PX = 60;
const NEAR_START_PX = 240;

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const oldDay = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "short" });

function dayName(date) {
  const midnight = (offset) => new Date().setHours(0, 0, 0, 0) + offset * 86_400_000;
  if (date >= midnight(0)) return "Today";
  if (date >= midnight(-1)) return "Yesterday";
  return (date.getFullYear() === new Date().getFullYear() ? day : oldDay).format(date);
}

/** `ask.delete(message)` has a deletion confirmed; `ask.problem(text)` shows what went wrong. */
export function threadView(store, chat, ask) {
  const [scroll, input] = [$("scroll"), $("message")];
  let shown = null; // the conversation on the screen
  let editing = null; // the message whose text is in the composer
  let atEnd = true;
  let firstKey = null;

  // --- messages ---------------------------------------------------------------------------------------------------

  /** What stands in the thread, top to bottom: days and messages, and last what is not sent yet. */
  function items(conversation) {
    const me = store.me.id;
    const said = store.thread(conversation).map((message) => ({ message, by: message.sender_id, at: Date.parse(message.timestamp) }));
    const waiting = store.outbox.filter(({ name }) => name === conversation.name);
    const all = [...said, ...waiting.map((sent) => ({ sent, by: me, at: sent.at }))];
    const lastMine = said.findLast(({ by, message }) => by === me && !message.deleted)?.message.id;
    const rows = [];
    let [previous, today] = [null, null];
    for (const { message, sent, by, at } of all) {
      const date = dayName(new Date(at));
      if (date !== today) rows.push({ key: `day ${new Date(at).toDateString()}`, date });
      const first = date !== today || previous.by !== by || at - previous.at > SAME_BREATH_MS;
      const key = (by === me && (message ?? sent).client_msg_id) || String(message.id);
      const name = conversation.kind === "room" && by !== me ? store.nameOfPerson(by) : null;
      const isEdited = message !== undefined && message.id === editing?.id;
      rows.push({ key, message, sent, by, at, mine: by === me, first, name, last: message?.id === lastMine, isEdited });
      [previous, today] = [{ by, at }, date];
    }
    return rows;
  }

  function signature({ key, message, sent, ...row }) {
    const { content, edited_at, deleted } = message ?? {};
    return [row, content, edited_at, deleted, sent && [sent.state, sent.problem, store.link.state === "online"]];
  }

  function build(row) {
    if (row.date) return el("li", { class: "day" }, el("span", { text: row.date }));
    const { message, sent, mine, first, name, by, at } = row;
    const time = el("time", { datetime: new Date(at).toISOString(), title: full.format(at), text: clock.format(at) });
    const heading = name ? el("span", { class: "author", text: name }) : el("span", { class: "visually-hidden", text: mine ? "You" : store.nameOfPerson(by) });
    const bubble = el("div", { class: "bubble" }, message?.deleted ? el("p", { class: "text", text: "This message was deleted." }) : prose((message ?? sent).content));
    const body = el("div", { class: "body" }, first && el("p", { class: "meta" }, heading, time), el("div", { class: "said" }, bubble, sent ? null : actions(row)), state(row), sent && actions(row));
    const classes = ["message", mine && "mine", first && "first", message?.deleted && "deleted", sent && sent.state, row.isEdited && "being-edited"];
    const face = name !== null && first && avatar(name, by, "user");
    return el("li", { class: classes.filter(Boolean).join(" ") }, face, body);
  }

  function state({ message, sent, last }) {
    if (sent?.state === "failed") return el("p", { class: "state", text: `Not sent. ${sentence(sent.problem)}` });
    if (sent) return el("p", { class: "state", text: store.link.state === "online" ? "Sending…" : "Waiting for the connection" });
    const parts = [message.edited_at && !message.deleted && "Edited", last && "Sent"].filter(Boolean);
    return parts.length ? el("p", { class: "state", text: parts.join(" · ") }) : null;
  }

  function actions({ message, sent, mine }) {
    const button = (text, onclick) => el("button", { type: "button", class: "link", text, onclick, "data-part": text });
    if (sent?.state === "failed") {
      return el("p", { class: "actions" }, button("Try again", () => chat.retry(sent)), button("Discard", () => chat.discard(sent)));
    }
    if (!mine || !message || message.deleted) return null;
    return el("p", { class: "actions" }, button("Edit", () => edit(message)), button("Delete", () => ask.delete(message)));
  }

  /** Where nothing hovers, a tap shows what can be done with one's message. */
  $("thread").addEventListener("click", ({ target }) => {
    const tapped = target.closest(".bubble")?.closest(".mine");
    for (const one of $("thread").querySelectorAll(".tapped")) if (one !== tapped) one.classList.remove("tapped");
    tapped?.classList.toggle("tapped");
    if (atEnd) toEnd();
  });

  // --- the composer -----------------------------------------------------------------------------------------------

  function fit() {
    input.style.height = "auto";
    if (input.scrollHeight) input.style.height = `${input.scrollHeight}px`;
  }

  function write(text) {
    input.value = text;
    fit();
  }

  function edit(message) {
    editing = message;
    write(message.content);
    input.focus();
    store.changed();
  }

  function stopEditing() {
    editing = null;
    write(shown?.draft ?? "");
    store.changed();
  }

  async function submit() {
    const text = input.value.trim();
    if (!text) return;
    if (!editing) {
      shown.draft = "";
      write("");
      atEnd = true;
      chat.typing(shown, false);
      chat.send(shown, text);
      return;
    }
    const message = editing;
    stopEditing();
    if (text === message.content) return;
    try {
      await chat.edit(message, text);
    } catch (error) {
      ask.problem(`Your message was not changed. ${error.message}`);
      edit(message);
      write(text);
    }
  }

  function editLast() {
    const mine = ({ sender_id, deleted }) => sender_id === store.me.id && !deleted;
    const message = store.thread(shown).findLast(mine);
    if (message) edit(message);
  }

  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
    input.focus();
  });
  input.addEventListener("input", () => {
    fit();
    if (editing) return;
    shown.draft = input.value;
    chat.typing(shown, input.value.trim() !== "");
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // this Enter chooses a word
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "ArrowUp" && !input.value) {
      event.preventDefault();
      editLast();
    } else if (event.key === "Escape" && editing) stopEditing();
  });
  $("edit-cancel").addEventListener("click", () => {
    stopEditing();
    input.focus();
  });

  // --- scrolling --------------------------------------------------------------------------------------------------

  const toEnd = () => (scroll.scrollTop = scroll.scrollHeight);
  const older = () => shown && scroll.scrollTop < NEAR_START_PX && chat.loadOlder(shown);

  scroll.addEventListener("scroll", () => {
    atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < AT_END_PX;
    $("to-newest").hidden = atEnd;
    older();
  });
  $("to-newest").addEventListener("click", toEnd);
  new ResizeObserver(() => atEnd && toEnd()).observe(scroll);

  // --- all of it --------------------------------------------------------------------------------------------------

  function top(node, conversation) {
    const { loaded, loading, complete, problem, messages } = conversation;
    if (problem) {
      const again = el("button", { type: "button", class: "link", text: "Try again", onclick: () => chat.load(conversation) });
      node.replaceChildren(`The messages could not be loaded. ${problem} `, again);
    } else if (loading) setText(node, "Loading…");
    else if (loaded && complete) setText(node, messages.size ? "This is the beginning of the conversation." : "Nothing has been said yet. Say hello.");
    else setText(node, "");
    node.classList.toggle("alone", !messages.size);
  }

  function about(conversation) {
    if (conversation.kind === "user") return store.person(conversation.id).email ?? "";
    const others = (conversation.members ?? []).filter((id) => id !== store.me.id);
    if (!conversation.members) return "";
    return ["You", ...others.map((id) => store.nameOfPerson(id)).sort((a, b) => a.localeCompare(b))].join(", ");
  }

  function typing({ typists }) {
    const names = [...typists.keys()].map((id) => store.nameOfPerson(id));
    if (names.length > 2) return "Several people are typing…";
    return names.length ? `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
  }

  function turnTo(conversation) {
    if (shown) chat.typing(shown, false);
    shown = conversation;
    editing = null;
    atEnd = true;
    firstKey = null;
    reconcile($("thread"), [], {});
    if (!conversation) return;
    $("thread").classList.toggle("of-room", conversation.kind === "room");
    write(conversation.draft);
    if (matchMedia("(hover: hover)").matches) input.focus();
  }

  function render() {
    const conversation = store.me && store.current ? store.conversation(store.current) : null;
    $("conversation").hidden = !conversation;
    if (conversation !== shown) turnTo(conversation);
    if (!conversation) return;
    const title = store.titleOf(conversation);
    paintAvatar($("conversation-avatar"), title, conversation.id, conversation.kind);
    setText($("conversation-title"), title);
    setText($("conversation-about"), about(conversation));
    input.placeholder = `Message ${title}`;
    $("editing").hidden = !editing;
    setText($("typing"), typing(conversation));

    const rows = items(conversation);
    const [height, offset] = [scroll.scrollHeight, scroll.scrollTop];
    top($("thread-top"), conversation);
    reconcile($("thread"), rows, { key: ({ key }) => key, signature, build });
    const grewAbove = firstKey !== null && rows.length && rows.some(({ key }) => key === firstKey) && rows[1]?.key !== firstKey;
    firstKey = rows[1]?.key ?? null; // the first row is a day
    if (atEnd) toEnd();
    else if (grewAbove) scroll.scrollTop = offset + scroll.scrollHeight - height;
    if (conversation.loaded) older();
  }

  store.subscribe(render);
}
