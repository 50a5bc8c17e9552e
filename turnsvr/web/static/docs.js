// Shows /openapi.json to people.

const METHODS = ["get", "post", "put", "delete"];

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** Text in which `this` is code. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", "", part) : part));
}

function endpoint(method, path, operation) {
  const details = element("details", "");
  details.append(element("summary", "", element("span", "method", method.toUpperCase()), element("code", "", path),
    ...prose(` – ${operation.summary ?? ""}`)));
  if (operation.description) details.append(element("p", "", ...prose(operation.description)));
  const parameters = operation.parameters ?? [];
  if (parameters.length) {
    const rows = parameters.map((each) => element("tr", "", element("td", "", element("code", "", each.name)),
      element("td", "", each.in), element("td", "", each.description ?? "")));
    details.append(element("div", "scroll", element("table", "described", element("tbody", "", ...rows))));
  }
  details.append(element("p", "note", `Answers: ${Object.keys(operation.responses ?? {}).join(", ")}`));
  return details;
}

const description = await (await fetch("/openapi.json")).json();
const place = document.getElementById("endpoints");
const byTag = new Map();
for (const [path, methods] of Object.entries(description.paths)) {
  for (const method of METHODS.filter((each) => methods[each])) {
    const tag = methods[method].tags?.[0] ?? "other";
    if (!byTag.has(tag)) byTag.set(tag, []);
    byTag.get(tag).push(endpoint(method, path, methods[method]));
  }
}
place.replaceChildren(...[...byTag].flatMap(([tag, all]) => [element("h3", "", tag), ...all]));
