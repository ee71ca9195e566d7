/** Making a room, and confirming a deletion. */

import { $, avatar, el, reconcile, setText, show } from "/web/dom.js";

/** `opened(name)` is called with the new room. Returns a function that opens the dialog. */
export function roomDialog(store, chat, opened) {
  const [dialog, name, filter] = [$("room-dialog"), $("room-name"), $("room-filter")];
  const chosen = new Set();

  function choice({ id, full_name, email, title }) {
    const onchange = ({ target }) => {
      chosen[target.checked ? "add" : "delete"](id);
      render();
    };
    const box = el("input", { type: "checkbox", onchange, checked: chosen.has(id), "data-part": "box" });
    const who = el("span", { class: "who" }, el("strong", { text: title }), full_name ? el("span", { text: email }) : null);
    return el("li", {}, el("label", {}, box, avatar(title, id, "user"), who));
  }

  function render() {
    if (!dialog.open) return;
    const wanted = filter.value.trim().toLowerCase();
    const others = [...store.people.values()].filter(({ id }) => id !== store.me.id);
    const titled = others.map((person) => ({ ...person, title: store.nameOfPerson(person.id) }));
    const found = titled.filter(({ title, email }) => `${title}\n${email}`.toLowerCase().includes(wanted));
    found.sort((a, b) => a.title.localeCompare(b.title));
    reconcile($("room-people"), found, { key: ({ id }) => id, signature: ({ title }) => title, build: choice });
    setText($("room-count"), chosen.size ? `${chosen.size} chosen` : "");
    show($("room-nobody"), found.length ? null : others.length ? "Nobody found." : "Nobody else has signed up yet.");
  }

  async function create() {
    const text = name.value.trim();
    if (!text) {
      show($("room-error"), "Give the room a name.");
      name.focus();
      return;
    }
    $("room-create").disabled = true;
    try {
      const room = await chat.createRoom(text, [...chosen]);
      dialog.close();
      opened(room);
    } catch (error) {
      show($("room-error"), error.message);
    } finally {
      $("room-create").disabled = false;
    }
  }

  filter.addEventListener("input", render);
  filter.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
  $("room-cancel").addEventListener("click", () => dialog.close());
  $("room-form").addEventListener("submit", (event) => {
    event.preventDefault();
    create();
  });
  store.subscribe(render);

  return () => {
    chosen.clear();
    name.value = filter.value = "";
    show($("room-error"), null);
    reconcile($("room-people"), [], {});
    dialog.showModal();
    name.focus();
    render();
    chat.loadPeople().catch((error) => show($("room-error"), error.message));
  };
}

/** Returns a function that asks whether to delete a message, and has it done. */
export function deleteDialog(chat, problem) {
  const dialog = $("delete-dialog");
  let message = null;

  dialog.addEventListener("close", async () => {
    if (dialog.returnValue !== "delete") return;
    try {
      await chat.delete(message);
    } catch (error) {
      problem(`The message was not deleted. ${error.message}`);
    }
  });

  return (asked) => {
    message = asked;
    setText($("delete-text"), asked.content);
    dialog.returnValue = "";
    dialog.showModal();
  };
}
