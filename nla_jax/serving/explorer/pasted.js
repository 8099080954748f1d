// What somebody pastes: plain text, or a conversation in one of the forms that are about.

const ROLES = { human: "user", gpt: "assistant", bot: "assistant", model: "assistant" };

const messageOf = (one) => {
  const role = one?.role ?? one?.from;
  const content = one?.content ?? one?.value;
  if (typeof role !== "string" || (content === undefined && !one.tool_calls)) return null;
  return { ...(one.role ? one : {}), role: ROLES[role] ?? role, content: content ?? "" };
};

/** {messages} of JSON that holds a conversation, else {text}. */
export const inputOf = (text) => {
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    return { text };
  }
  const list = Array.isArray(parsed)
    ? parsed
    : (parsed?.messages ?? parsed?.conversations ?? parsed?.conversation);
  if (!Array.isArray(list) || !list.length) return { text };
  const messages = list.map(messageOf);
  return messages.every(Boolean) ? { messages } : { text };
};
