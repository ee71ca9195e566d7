/** The page: signs a person in, puts store, network and views together, and follows the address (`#room/2`, `#user/7`). */

import { Api, sentence } from "/web/api.js";
import { Chat } from "/web/chat.js";
import { $, setText, show } from "/web/dom.js";
import { Store } from "/web/store.js";
import { deleteDialog, roomDialog } from "/web/views/dialogs.js";
import { entryView } from "/web/views/entry.js";
import { sidebarView } from "/web/views/sidebar.js";
import { threadView } from "/web/views/thread.js";

// In sessionStorage, so that two windows can be two people.
const TOKEN = "fastsock.token";
const FAREWELL = "fastsock.farewell";
const LOOK_AROUND_MS = 5_000;
const ENDED = "Your session has ended. Sign in again.";

const store = new Store();
const api = new Api();
const chat = new Chat(store, api, { message: announce, problem: notice, ended: () => leave(ENDED) });
api.onUnauthorised = () => leave(ENDED);
let leaving = false;

const entry = entryView(api, (token) => {
  sessionStorage.setItem(TOKEN, token);
  start(token);
});
const openRoomDialog = roomDialog(store, chat, (name) => (location.hash = name.replace(":", "/")));
const askDelete = deleteDialog(chat, notice);
store.subscribe(render); // first: what is not displayed cannot be measured
sidebarView(store);
threadView(store, chat, { delete: askDelete, problem: notice });

// --- coming and going -----------------------------------------------------------------------------------------------

async function start(token) {
  api.token = token;
  try {
    await chat.start();
  } catch (error) {
    if (leaving) return;
    if (!store.me) return entry.open(error.message); // a reload tries the same token again
    notice(error.message);
  }
  entry.close();
  $("chat").hidden = false;
  follow();
}

/** Back to the sign-in form, by a reload: so nothing of one person is left for the next. */
function leave(text) {
  if (leaving) return;
  leaving = true;
  sessionStorage.removeItem(TOKEN);
  sessionStorage.setItem(FAREWELL, text);
  history.replaceState(null, "", location.pathname);
  location.reload();
}

function follow() {
  if (!store.me) return;
  const [, kind, id] = /^#(room|user)\/(\d+)$/.exec(location.hash) ?? [];
  chat.open(kind ? `${kind}:${id}` : null);
}

const isAlone = () => store.people.size < 2;

/** New people are found when one comes back to the window; whoever is alone has nothing else to wait for. */
function lookAround() {
  if (store.me) chat.loadPeople().catch(() => {});
}

// --- what concerns the whole page -----------------------------------------------------------------------------------

const LINK_LOST = { connecting: "Connecting…", replaced: "FastSock is open in too many windows." };

function render() {
  document.body.classList.toggle("in-conversation", store.current !== null);
  const unread = store.me ? store.totalUnread : 0;
  const place = store.me && store.current ? `${store.titleOf(store.conversation(store.current))} · FastSock` : "FastSock";
  document.title = unread ? `(${unread}) ${place}` : place;

  $("welcome").hidden = !store.me || store.current !== null;
  const alone = isAlone() && store.rooms.size === 0;
  setText($("welcome-title"), alone ? "You are the first one here" : "Choose a conversation");
  const first = "Open this page in a second window, sign up as somebody else, and talk to yourself for a while.";
  setText($("welcome-text"), alone ? first : "Pick a room or a person from the list, or make a new room.");
  countDown();
}

/** The banner over a conversation while there is no connection; not for the blink of an eye in which one is made. */
function countDown() {
  const { state, retryAtMs } = store.link;
  const seconds = Math.ceil((retryAtMs - Date.now()) / 1_000);
  const waiting = `Connection lost. Trying again ${seconds > 1 ? `in ${seconds} s` : "now"}.`;
  $("banner").hidden = !store.me || state === "online" || (state === "connecting" && $("banner").hidden);
  setText($("banner-text"), state === "waiting" ? waiting : (LINK_LOST[state] ?? ""));
  setText($("banner-action"), state === "replaced" ? "Use it here" : "Try now");
  $("banner-action").hidden = state === "connecting";
}

function notice(text) {
  show($("notice-text"), sentence(text));
  $("notice").hidden = false;
}

/** For those who listen instead of looking. */
function announce(message) {
  const name = store.nameOf(message);
  const where = name === store.current || message.room_id == null ? "" : ` in ${store.titleOf(store.conversation(name))}`;
  $("announcer").textContent = `${store.nameOfPerson(message.sender_id)}${where}: ${message.content}`;
}

function watch() {
  store.watched = !document.hidden;
  if (!store.me || document.hidden) return;
  if (store.current) store.markRead(store.conversation(store.current));
  store.changed();
  if (store.link.state === "waiting") chat.reconnect();
}

setInterval(() => store.link.state === "waiting" && countDown(), 500);
window.addEventListener("hashchange", follow);
window.addEventListener("online", () => store.me && chat.reconnect());
window.addEventListener("focus", lookAround);
setInterval(() => isAlone() && !document.hidden && lookAround(), LOOK_AROUND_MS);
document.addEventListener("visibilitychange", watch);
$("new-room").addEventListener("click", openRoomDialog);
$("banner-action").addEventListener("click", () => chat.reconnect());
$("notice-close").addEventListener("click", () => ($("notice").hidden = true));
$("sign-out").addEventListener("click", () => leave(""));

const token = sessionStorage.getItem(TOKEN);
if (token) start(token);
else entry.open(sessionStorage.getItem(FAREWELL));
sessionStorage.removeItem(FAREWELL);
