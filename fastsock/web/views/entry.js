/** Signing in and signing up: one form in two moods. */

import { $, show } from "/web/dom.js";

const MOODS = {
  in: { submit: "Sign in", busy: "Signing in…", question: "New here?", other: "Create an account" },
  up: { submit: "Create account", busy: "Creating…", question: "Already have an account?", other: "Sign in" },
};
const MIN_PASSWORD_CHARS = 8;

/** `enter(token)` is called when a person is in. Returns `{open(text), close()}`. */
export function entryView(api, enter) {
  let mood = "in";
  const [email, password, name] = [$("entry-email"), $("entry-password"), $("entry-name")];

  function set(next) {
    mood = next;
    const { submit, question, other } = MOODS[mood];
    $("entry-name-field").hidden = $("entry-hint").hidden = mood === "in";
    password.autocomplete = mood === "in" ? "current-password" : "new-password";
    $("entry-submit").textContent = submit;
    $("entry-question").textContent = question;
    $("entry-switch").textContent = other;
    show($("entry-error"), null);
  }

  function refuse(field, text) {
    show($("entry-error"), text);
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }

  async function submit() {
    const address = email.value.trim();
    for (const field of [email, password]) field.removeAttribute("aria-invalid");
    if (!/.@./.test(address)) return refuse(email, "Enter your email address.");
    if (!password.value) return refuse(password, "Enter your password.");
    const short = mood === "up" && [...password.value].length < MIN_PASSWORD_CHARS;
    if (short) return refuse(password, `Choose a password of at least ${MIN_PASSWORD_CHARS} characters.`);
    show($("entry-error"), null);
    $("entry-submit").disabled = true;
    $("entry-submit").textContent = MOODS[mood].busy;
    try {
      if (mood === "up") await api.signUp(address, password.value, name.value.trim());
      enter(await api.signIn(address, password.value));
    } catch (error) {
      refuse(error.code === "email_taken" ? email : password, error.message);
    } finally {
      $("entry-submit").disabled = false;
      $("entry-submit").textContent = MOODS[mood].submit;
    }
  }

  $("entry-switch").addEventListener("click", () => {
    set(mood === "in" ? "up" : "in");
    (mood === "up" ? name : email).focus();
  });
  $("entry-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });

  return {
    open(text) {
      set("in");
      password.value = "";
      show($("entry-error"), text);
      $("entry").hidden = false;
      (email.value ? password : email).focus();
    },
    close() {
      $("entry").hidden = true;
    },
  };
}
