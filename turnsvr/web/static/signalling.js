// A small Socket.IO client (Engine.IO 4): WebSocket first, HTTP long polling where WebSocket is blocked.

const PATH = "/socket.io/?EIO=4";
const WEBSOCKET_SECONDS = 5;
const SEPARATOR = "\x1e";
const OPEN = "0", CLOSE = "1", PING = "2", PONG = "3", MESSAGE = "4";
const CONNECT = "0", DISCONNECT = "1", EVENT = "2";

export class Signalling {
  /** onEvent(kind, message) hears what the server sends; onClose() that the connection is gone. */
  constructor({ onEvent, onClose }) {
    this.onEvent = onEvent;
    this.onClose = onClose;
    this.transport = "";
    this.closed = false;
  }

  /** Connects; throws Error when neither way works. */
  async open() {
    try {
      this.way = await webSocket(this);
      this.transport = "websocket";
    } catch {
      this.way = await polling(this);
      this.transport = "polling";
    }
  }

  send(kind, message = {}) {
    this.way?.send(MESSAGE + EVENT + JSON.stringify([kind, message]));
  }

  close() {
    this.closed = true;
    this.way?.send(MESSAGE + DISCONNECT);
    this.way?.close();
  }

  /** One Engine.IO packet; true once the Socket.IO connection stands. */
  take(packet) {
    if (packet[0] === PING) this.way?.send(PONG);
    else if (packet[0] === CLOSE) this.lost();
    else if (packet[0] === MESSAGE && packet[1] === CONNECT) return true;
    else if (packet[0] === MESSAGE && packet[1] === DISCONNECT) this.lost();
    else if (packet[0] === MESSAGE && packet[1] === EVENT) {
      const [kind, message] = JSON.parse(packet.slice(packet.indexOf("[")));
      this.onEvent(kind, message);
    }
    return false;
  }

  lost() {
    if (this.closed) return;
    this.closed = true;
    this.onClose();
  }
}

function webSocket(client) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}${PATH}&transport=websocket`);
    const way = { send: (packet) => { if (socket.readyState === WebSocket.OPEN) socket.send(packet); }, close: () => socket.close() };
    let standing = false;
    const timer = setTimeout(() => { socket.close(); reject(new Error("no WebSocket")); }, WEBSOCKET_SECONDS * 1000);
    socket.onmessage = ({ data }) => {
      if (data[0] === OPEN) { way.send(MESSAGE + CONNECT); return; }
      if (client.take(data) && !standing) {
        standing = true;
        clearTimeout(timer);
        resolve(way);
      }
    };
    socket.onclose = () => {
      clearTimeout(timer);
      if (standing) client.lost();
      else reject(new Error("no WebSocket"));
    };
  });
}

async function polling(client) {
  const url = `${PATH}&transport=polling`;
  const [opening] = await poll(url);
  const { sid } = JSON.parse(opening.slice(1));
  const session = `${url}&sid=${encodeURIComponent(sid)}`;
  let queue = [], posting = null, stopped = false;
  const flush = async () => {
    while (queue.length) {
      const packets = queue;
      queue = [];
      await post(session, packets.join(SEPARATOR)).catch(() => { stopped = true; client.lost(); });
    }
    posting = null;
  };
  const way = {
    send: (packet) => { queue.push(packet); posting ??= flush(); },
    close: () => { stopped = true; },
  };
  await post(session, MESSAGE + CONNECT);
  return new Promise((resolve, reject) => {
    (async () => {
      while (!stopped) {
        for (const packet of await poll(session)) {
          client.way ??= way;
          if (client.take(packet)) resolve(way);
        }
      }
    })().catch((error) => { reject(error); if (!stopped) client.lost(); });
  });
}

async function poll(url) {
  const answer = await fetch(url, { cache: "no-store" });
  if (!answer.ok) throw new Error(`signalling: ${answer.status}`);
  return (await answer.text()).split(SEPARATOR);
}

async function post(url, body) {
  const answer = await fetch(url, { method: "POST", body, headers: { "Content-Type": "text/plain;charset=UTF-8" } });
  if (!answer.ok) throw new Error(`signalling: ${answer.status}`);
}
