// Remembers the boards that were viewed, in this browser only, for the front page.
"use strict";
(() => {
  const KEY = "recent boards", MAX_BOARDS = 6;
  const stored = () => {
    try {
      const boards = JSON.parse(localStorage.getItem(KEY));
      return Array.isArray(boards) ? boards.filter(({ path }) => String(path).startsWith("/board/")) : [];
    } catch {
      return [];  // nothing, something else, or a browser that stores nothing
    }
  };

  const board = document.querySelector("#board");
  if (board && window.top === window && !board.querySelector(".notice.unknown")) {
    const name = [...board.querySelectorAll("h1")].map((title) => title.textContent).join(", ");
    const path = location.pathname + location.search;
    try {
      const others = stored().filter((other) => other.path !== path);
      localStorage.setItem(KEY, JSON.stringify([{ path, name }, ...others].slice(0, MAX_BOARDS)));
    } catch {}
  }

  const section = document.querySelector("#recent");
  if (!section) return;
  const boards = stored();
  section.hidden = !boards.length;
  section.querySelector("ul").replaceChildren(...boards.map(({ path, name }) => {
    const item = document.createElement("li"), link = document.createElement("a"), text = document.createElement("b");
    text.textContent = name;
    link.href = path;
    link.lang = "nl";
    link.append(text);
    item.append(link);
    return item;
  }));
  section.querySelector("button").addEventListener("click", () => {
    localStorage.removeItem(KEY);
    section.hidden = true;
  });
})();
