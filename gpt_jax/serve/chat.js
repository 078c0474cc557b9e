"use strict";

const find = (id) => document.getElementById(id);
const main = document.querySelector("main");
const chats = main.dataset.chat === "yes";
let turns = [];
let stop = null;

function show(role, text) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = text;
  find("turns").append(item);
  item.scrollIntoView({ block: "end" });
  return item;
}

function request(text) {
  const common = {
    model: main.dataset.model,
    temperature: Number(find("temperature").value),
    max_tokens: Number(find("tokens").value),
    stream: true,
  };
  if (!chats) return ["/v1/completions", { ...common, prompt: text }];
  const system = find("system").value.trim();
  const first = system ? [{ role: "system", content: system }] : [];
  return ["/v1/chat/completions", { ...common, messages: [...first, ...turns] }];
}

function headers() {
  const key = find("key");
  const all = { "Content-Type": "application/json" };
  if (key && key.value) all.Authorization = `Bearer ${key.value}`;
  return all;
}

/* The pieces of text that the lines of a stream of events hold. */
async function* pieces(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice) yield (chats ? choice.delta.content : choice.text) || "";
    }
  }
}

/* The server's answer. Where the conversation has outgrown the context, the oldest message and its
   answer are left out, and the reader is told. */
async function ask(text, signal, answer) {
  for (;;) {
    const [path, body] = request(text);
    const options = { method: "POST", headers: headers(), body: JSON.stringify(body), signal };
    const response = await fetch(path, options);
    if (response.ok) return response;
    const { error } = await response.json();
    if (error.code !== "context_length_exceeded" || turns.length < 3) throw new Error(error.message);
    turns = turns.slice(2);
    answer.before(show("note", "The oldest message has left the context."));
  }
}

async function send(text) {
  if (chats) turns.push({ role: "user", content: text });
  show("user", text);
  const answer = show("assistant", "");
  stop = new AbortController();
  find("send").textContent = "Stop";
  try {
    for await (const piece of pieces(await ask(text, stop.signal, answer))) {
      answer.textContent += piece;
      answer.scrollIntoView({ block: "end" });
    }
  } catch (error) {
    if (error.name !== "AbortError") show("error", error.message);
  }
  if (chats) turns.push({ role: "assistant", content: answer.textContent });
  if (!answer.textContent) answer.remove();
  stop = null;
  find("send").textContent = "Send";
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stop) return stop.abort();
  const text = find("text").value;
  if (!text.trim()) return;
  find("text").value = "";
  send(text);
});

find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("form").requestSubmit();
  }
});

find("clear").addEventListener("click", () => {
  if (stop) stop.abort();
  turns = [];
  find("turns").replaceChildren();
});
