/* Search for pages that are opened from the disk, where browsers run no workers: an invisible frame
   does the work instead, and knows the same two messages. Loaded before the theme's own scripts. */
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((loaded) => {
        frame.onload = () => {
          const inside = frame.contentWindow;
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          inside.importScripts = async (...urls) => {
            for (const one of urls) await this.run(one);
          };
          this.inside = inside;
          loaded(this.run(url));
        };
      });
      frame.srcdoc = "<!doctype html><title>search</title>";
      document.body.append(frame);
    }

    run(url) {
      return new Promise((done, failed) => {
        const script = this.inside.document.createElement("script");
        Object.assign(script, { src: url, onload: done, onerror: failed });
        this.inside.document.body.append(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
