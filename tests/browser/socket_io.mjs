// The ordinary Socket.IO client from npm in a room: prints what it hears.
// usage: node socket_io.mjs URL websocket|polling ROOM
import { io } from 'socket.io-client';

const [url, transport, room] = process.argv.slice(2);
const socket = io(url, { transports: [transport], reconnection: false });
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
for (const kind of ['joined', 'peer-joined', 'peer-left', 'offer', 'answer', 'candidate', 'error']) {
  socket.on(kind, (message) => {
    print({ kind, message, transport: socket.io.engine.transport.name });
    if (kind === 'offer') socket.emit('answer', { to: message.from, description: { type: 'answer', sdp: message.description.sdp } });
    if (kind === 'peer-left') socket.disconnect();
  });
}
socket.on('connect_error', (error) => { print({ kind: 'refused', message: String(error) }); process.exit(1); });
socket.on('disconnect', () => process.exit(0));
socket.on('connect', async () => print({ kind: 'acknowledged', message: await socket.timeout(10_000).emitWithAck('join', { room }) }));
