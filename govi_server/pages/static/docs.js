// Adds a form to each operation, made from /openapi.json, that sends a request and shows its response. Without this script
// there is a link to an example.
"use strict";
(() => {
  const MAX_CHARACTERS = 20000;  // of a body that are shown
  const STREAM_SECONDS = 30;  // for which an event stream is shown
  if (!window.fetch || !window.AbortController) return;

  const element = (name, properties, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };

  let description = null;  // a promise of /openapi.json
  const paths = () => {
    description ??= fetch("/openapi.json").then((response) => response.json());
    return description.then(({ paths }) => paths);
  };

  const control = ({ name, required, example, schema }) => {
    const properties = { name, required, autocomplete: "off", spellcheck: false };
    if (schema.enum) {
      return element("select", { name }, ...[...(required ? [] : [""]), ...schema.enum].map((value) => element("option", { value }, value)));
    }
    const text = example === undefined ? "" : String(example);
    return element("input", { ...properties, [required ? "value" : "placeholder"]: text });
  };

  const form = (operation) => {
    const types = Object.keys(operation.responses["200"].content ?? {});
    const fields = operation.parameters.map((parameter) =>
      element("label", {}, element("code", {}, parameter.name), control(parameter)));
    if (types.length > 1) {
      const options = types.map((value) => element("option", { value }, value));
      fields.push(element("label", {}, element("code", {}, "Accept"), element("select", { name: "header Accept" }, ...options)));
    }
    return element("form", {}, ...fields, element("button", {}, "Send"));
  };

  const address = (path, operation, values) => {
    const query = new URLSearchParams();
    for (const { name, in: place } of operation.parameters) {
      const value = values.get(name);
      if (place === "path") path = path.replace(`{${name}}`, encodeURIComponent(value).replaceAll("%2C", ","));
      else if (value) query.append(name, value);
    }
    return String(query) ? `${path}?${query}` : path;
  };

  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  // Passes the text of a response on as it arrives, to its end or until the time of a stream is over.
  const read = async (response, show) => {
    const type = response.headers.get("Content-Type") ?? "", reader = response.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      text += decoder.decode(value, { stream: !done });
      if (done) break;
      if (type.startsWith("text/event-stream")) show(text);
    }
    show(/[/+]json/.test(type) && text ? JSON.stringify(JSON.parse(text), null, 2) : text);
  };

  const add = async (details) => {
    const path = details.dataset.path, operation = (await paths())[path].get;
    const inputs = form(operation);
    const status = element("p", { className: "response", role: "status" });
    const command = element("pre", { tabIndex: 0, hidden: true }), fields = command.cloneNode(), body = command.cloneNode();
    let request = new AbortController();
    details.append(inputs, command, status, fields, body);

    const show = (text) => {
      const rest = text.length - MAX_CHARACTERS;
      body.textContent = rest > 0 ? `${text.slice(0, MAX_CHARACTERS)}\n… (${rest} more characters)` : text;
      body.hidden = !text;
    };

    inputs.addEventListener("submit", async (event) => {
      event.preventDefault();
      request.abort();
      const { signal } = request = new AbortController();
      const values = new FormData(inputs), accept = values.get("header Accept"), url = address(path, operation, values);
      const stop = setTimeout(() => request.abort(), 1000 * STREAM_SECONDS);
      const header = accept ? ` -H ${quote(`Accept: ${accept}`)}` : "";
      command.textContent = `curl${header} ${quote(location.origin + url)}`;
      command.hidden = false;
      status.textContent = "Waiting…";
      fields.hidden = body.hidden = true;
      try {
        const response = await fetch(url, { signal, headers: accept ? { Accept: accept } : {} });
        status.textContent = `${response.status} ${response.statusText}`;
        fields.textContent = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
        fields.hidden = false;
        await read(response, show);
      } catch (error) {
        if (error.name !== "AbortError") status.textContent = `No response: ${error.message}`;
        else if (!body.hidden) status.textContent += ` (ended after ${STREAM_SECONDS} s)`;
      } finally {
        clearTimeout(stop);
      }
    });
    details.addEventListener("toggle", () => { if (!details.open) request.abort(); });
  };

  for (const details of document.querySelectorAll(".try")) {
    details.addEventListener("toggle", () => add(details), { once: true });
  }
})();
