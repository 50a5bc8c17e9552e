// Tabs as the keyboard knows them: one of them is in the tab order, arrow keys go to its neighbours.

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };

/** list: the element of role tablist; its tabs are links. */
export function useArrowKeys(list) {
  list.addEventListener("keydown", (event) => {
    const tabs = [...list.querySelectorAll('[role="tab"]')].filter((tab) => !tab.hidden);
    const now = tabs.indexOf(document.activeElement);
    if (now < 0) return;
    let next;
    if (event.key in STEPS) next = (now + STEPS[event.key] + tabs.length) % tabs.length;
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = tabs.length - 1;
    else return;
    event.preventDefault();
    // Going to a fragment takes the focus away, which comes back once the tab is shown.
    window.addEventListener("hashchange", () => tabs[next].focus(), { once: true });
    tabs[next].click();
  });
}
