// Appends to a log what is written while it is looked at.

const log = document.getElementById("log");
const PAUSE = 1000;
const MOST = 2_000_000;

function atEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
}

async function more() {
  if (document.hidden) return;
  const answer = await fetch(`${log.dataset.url}&position=${log.dataset.position}`);
  if (!answer.ok) return;
  const part = await answer.json();
  const follow = atEnd();
  if (part.html) {
    // the server has escaped it: what is left are spans with classes
    const parsed = new DOMParser().parseFromString(part.html, "text/html");
    log.append(...parsed.body.childNodes);
    if (log.textContent.length > MOST) log.replaceChildren(log.textContent.slice(-MOST / 2));
    if (follow) log.scrollTop = log.scrollHeight;
  }
  const moved = part.position !== Number(log.dataset.position);
  log.dataset.position = part.position;
  if (part.ended && !moved) log.dataset.ended = "yes";
}

async function goOn() {
  try {
    await more();
  } catch {
    // the server is away: the next try comes
  }
  if (log.dataset.ended !== "yes") setTimeout(goOn, PAUSE);
}

if (log) {
  log.scrollTop = log.scrollHeight;
  if (log.dataset.ended !== "yes") setTimeout(goOn, PAUSE);
}
