// What is sent in a call: camera, screen, or a picture and a tone made here, which need no permission.

const WIDTH = 640, HEIGHT = 480, FRAMES = 20;

/** A MediaStream of "camera", "screen" or "pattern". secure: this page over https, if known. Throws Error for people. */
export async function source(kind, secure) {
  if (kind === "pattern") return pattern();
  const devices = navigator.mediaDevices;
  if (!devices) {
    throw new Error(`Browsers give camera and screen only to pages over https. Open ${secure || "the https address"} or send the test picture.`);
  }
  try {
    if (kind === "screen") return await devices.getDisplayMedia({ video: true, audio: false });
    return await devices.getUserMedia({ video: { width: WIDTH, height: HEIGHT }, audio: true });
  } catch (error) {
    const reasons = { NotAllowedError: "it was not allowed", NotFoundError: "there is none", NotReadableError: "another program uses it" };
    throw new Error(`No ${kind}: ${reasons[error.name] ?? error.message}. The test picture works without.`);
  }
}

function pattern() {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const pen = canvas.getContext("2d");
  const hue = Math.floor(Math.random() * 360);
  let frame = 0;
  const draw = () => {
    pen.fillStyle = `hsl(${hue} 45% 22%)`;
    pen.fillRect(0, 0, WIDTH, HEIGHT);
    for (let bar = 0; bar < 8; bar += 1) {
      pen.fillStyle = `hsl(${(hue + bar * 45) % 360} 75% 55%)`;
      pen.fillRect(bar * (WIDTH / 8), 0, WIDTH / 8, 90);
    }
    const angle = (frame / FRAMES) * Math.PI * 0.5;
    pen.fillStyle = `hsl(${(hue + 180) % 360} 80% 65%)`;
    pen.beginPath();
    pen.arc(WIDTH / 2 + 190 * Math.cos(angle), 280 + 110 * Math.sin(angle), 44, 0, 2 * Math.PI);
    pen.fill();
    pen.fillStyle = "#fff";
    pen.font = "600 44px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.fillText(new Date().toLocaleTimeString(), WIDTH / 2, 292);
    pen.font = "22px system-ui, sans-serif";
    pen.fillText(`frame ${frame}`, WIDTH / 2, 326);
    frame += 1;
  };
  draw();
  const timer = setInterval(draw, 1000 / FRAMES);
  const stream = canvas.captureStream(FRAMES);
  const silence = tone(stream);
  stream.end = () => { clearInterval(timer); silence(); };
  return stream;
}

/** Adds a quiet beep each second; returns what ends it. */
function tone(stream) {
  try {
    const audio = new AudioContext();
    const oscillator = audio.createOscillator(), gain = audio.createGain();
    const target = audio.createMediaStreamDestination();
    oscillator.frequency.value = 440;
    gain.gain.value = 0;
    oscillator.connect(gain).connect(target);
    oscillator.start();
    const timer = setInterval(() => {
      gain.gain.setValueAtTime(0.08, audio.currentTime);
      gain.gain.setValueAtTime(0, audio.currentTime + 0.12);
    }, 1000);
    stream.addTrack(target.stream.getAudioTracks()[0]);
    return () => { clearInterval(timer); audio.close(); };
  } catch {
    return () => {};
  }
}

export function endStream(stream) {
  stream?.getTracks().forEach((track) => track.stop());
  stream?.end?.();
}
