/** The list of rooms and people, with what is unread, who one is, and how the connection is. */

import { $, avatar, el, paintAvatar, reconcile, setText, show } from "/web/dom.js";

const LINK_TEXT = { connecting: "Connecting…", online: "Connected", waiting: "Offline", replaced: "Disconnected" };

export function sidebarView(store) {
  const filter = $("filter");
  filter.addEventListener("input", render);

  function row({ name, title, about, unread, open, kind, id }) {
    const count = unread > 99 ? "99+" : String(unread);
    const badge = unread && el("span", { class: "badge" }, count, el("span", { class: "visually-hidden", text: " unread" }));
    const who = el("span", { class: "who" }, el("strong", { text: title }), el("span", { text: about }));
    const link = { href: `#${name.replace(":", "/")}`, "data-part": "link", "aria-current": open ? "page" : null };
    return el("li", {}, el("a", link, avatar(title, id, kind), who, badge || null));
  }

  function describe(kind, id, about) {
    const name = `${kind}:${id}`;
    const { unread = 0 } = store.conversations.get(name) ?? {};
    return { name, kind, id, about, unread, title: store.titleOf({ kind, id }), open: name === store.current };
  }

  function list(kind, rows, empty) {
    const wanted = filter.value.trim().toLowerCase();
    const found = rows.filter(({ title, about }) => `${title}\n${about}`.toLowerCase().includes(wanted));
    found.sort((a, b) => a.title.localeCompare(b.title) || a.id - b.id);
    reconcile($(kind), found, { key: ({ name }) => name, signature: (one) => one, build: row });
    show($(`${kind}-empty`), found.length ? null : rows.length ? "Nothing found." : empty);
  }

  function render() {
    if (!store.me) return;
    const rooms = [...store.rooms.values()];
    const people = [...store.people.values()].filter(({ id }) => id !== store.me.id);
    const members = (count) => (count === 1 ? "Only you" : `${count} members`);
    list("rooms", rooms.map((room) => describe("room", room.id, members(room.member_count))), "No rooms yet.");
    list("people", people.map((one) => describe("user", one.id, one.email)), "Nobody else has signed up yet.");

    const myName = store.me.full_name || store.me.email;
    paintAvatar($("me-avatar"), myName, store.me.id, "user");
    setText($("me-name"), myName);
    setText($("me-email"), store.me.full_name ? store.me.email : "");
    setText($("link"), LINK_TEXT[store.link.state]);
    $("link").dataset.state = store.link.state;
  }

  store.subscribe(render);
}
