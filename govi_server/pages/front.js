// Finds stops while somebody types. Without this script the form asks for the page itself.
"use strict";
(() => {
  const form = document.querySelector(".find");
  if (!form || !window.fetch || !window.AbortController) return;
  const input = form.querySelector("input");
  const list = document.querySelector("#found");
  const status = document.querySelector("#said");
  const words = (count) => {
    if (count >= 20) return "The first 20 stops: more words find fewer";
    return count === 0 ? "No stop found" : count === 1 ? "1 stop" : `${count} stops`;
  };
  let asking = new AbortController();
  let later = 0;

  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  const show = (stops) => {
    list.replaceChildren(...stops.map((stop) => {
      const town = stop.TimingPointTown === "unknown" ? "" : stop.TimingPointTown;
      const own = stop.TimingPointName.startsWith(`${town}, `) ? stop.TimingPointName.slice(town.length + 2) : stop.TimingPointName;
      const link = element("a", "");
      link.href = `/board/${encodeURIComponent(stop.TimingPointCode)}`;
      link.append(element("b", own), " ", element("span", town), " ");
      if (stop.Distance !== undefined) link.append(element("span", `${stop.Distance} m`), " ");
      link.append(element("code", stop.TimingPointCode));
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
    status.textContent = words(stops.length);
  };

  const ask = async (url) => {
    asking.abort();
    asking = new AbortController();
    try {
      const answer = await fetch(url, { signal: asking.signal });
      if (answer.ok) show((await answer.json()).Stops);
      else status.textContent = "The server cannot search now";
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = "The server does not answer";
    }
  };

  const find = () => {
    const query = input.value.trim();
    history.replaceState(null, "", query ? `/?q=${encodeURIComponent(query)}` : "/");
    if (query) {
      ask(`/stops?q=${encodeURIComponent(query)}`);
    } else {
      asking.abort();
      list.replaceChildren();
      status.textContent = "";
    }
  };

  input.addEventListener("input", () => {
    clearTimeout(later);
    later = setTimeout(find, 120);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(later);
    find();
  });

  // Arrows go from the field into the list and back; Tab and Enter do what they do everywhere.
  document.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (at < 0 && document.activeElement !== input) return;
    if (event.key === "ArrowDown" && links[at + 1]) links[at + 1].focus();
    else if (event.key === "ArrowUp" && at >= 0) (links[at - 1] || input).focus();
    else if (event.key === "Escape" && at >= 0) input.focus();
    else return;
    event.preventDefault();
  });

  const near = form.querySelector(".second");
  if (near && navigator.geolocation && window.isSecureContext) {
    near.hidden = false;
    near.addEventListener("click", () => {
      status.textContent = "Looking where you are…";
      navigator.geolocation.getCurrentPosition(
        ({ coords }) => ask(`/near?lat=${coords.latitude.toFixed(6)}&lon=${coords.longitude.toFixed(6)}`),
        () => { status.textContent = "Your place is not known"; },
        { timeout: 10000, maximumAge: 60000 },
      );
    });
  }
})();
