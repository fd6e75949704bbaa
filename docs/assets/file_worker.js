// Browsers refuse to start a web worker from a file. The search of a site that is opened from the file system runs
// in an iframe instead, which is given the interface of a worker.
class FileWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.appendChild(frame);
    this.inside = frame.contentWindow;
    this.inside.send = (data) => {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    };
    this.ready = new Promise((resolve) => (this.start = resolve));
    this.inside.started = () => this.start();
    const page = this.inside.document;
    page.open();
    page.write(`<body><script>
      postMessage = (data) => send(structuredClone(data));
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((resolve) => {
        const script = document.createElement("script");
        script.src = url;
        script.onload = resolve;
        document.body.appendChild(script);
      })), Promise.resolve());
    <\/script><script src="${url}" onload="started()"><\/script></body>`);
    page.close();
  }

  postMessage(data) {
    this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) })));
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = FileWorker;
  window.Worker = FileWorker;
}
