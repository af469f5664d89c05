//! A browser without a window, driven as a person would: what is on the page, what it says to who cannot see it, what
//! its console complains about, and whom it asks.
//!
//! It is told what to do over two pipes, as JSON messages with a zero byte behind each (Chromium,
//! `--remote-debugging-pipe`; DevTools protocol), so that no port is opened for it.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::poll::wait_for;

const WITHIN: Duration = Duration::from_secs(30);
/// Where Debian has it.
const PROGRAM: &str = "/usr/bin/chromium";
/// Nothing that a browser does of its own accord; tests run as root, where its sandbox does not.
const FLAGS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-breakpad",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];

/// A browser with one page. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    events: VecDeque<Value>,
    last: u64,
    session: String,
    dir: PathBuf,
    requests: Vec<String>,
    complaints: Vec<String>,
}

/// What a page is to those who cannot see it: one node of the accessibility tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// `link`, `table`, `heading`.
    pub role: String,
    /// What it is called.
    pub name: String,
}

impl Browser {
    /// Starts one by a command line that programs are added to (`Rig::command_on`); its files go to `dir`.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn start(mut command: Command, dir: &Path) -> Result<Self> {
        ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: apt-get install chromium");
        fs::create_dir_all(dir)?;
        // It reads from 3 and writes to 4.
        command.args(["/bin/sh", "-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null", "sh"]);
        command.arg(PROGRAM).args(FLAGS);
        command.arg(format!("--user-data-dir={}", dir.join("profile").display()));
        command
            .env("HOME", dir)
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("DBUS_SESSION_BUS_ADDRESS");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(fs::File::create(dir.join("browser.log"))?);
        let mut child = command.spawn().context("cannot start a browser")?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            input,
            messages,
            events: VecDeque::new(),
            last: 0,
            session: String::new(),
            dir: dir.to_owned(),
            requests: Vec::new(),
            complaints: Vec::new(),
        };
        browser.open()?;
        Ok(browser)
    }

    fn open(&mut self) -> Result<()> {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", &attach)?;
        self.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        self.resize(1280, 900)
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// Where it is refused, or the browser is gone.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.input.write_all(&bytes).with_context(|| self.log())?;
        let until = Instant::now() + WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = match self.messages.recv_timeout(left) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => bail!("{method} has no answer{}", self.log()),
                Err(RecvTimeoutError::Disconnected) => bail!("the browser is gone{}", self.log()),
            };
            if answer["id"] != self.last {
                self.note(answer);
                continue;
            }
            ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return Ok(answer["result"].clone());
        }
    }

    fn note(&mut self, event: Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.extend(params["request"]["url"].as_str().map(str::to_owned));
            }
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(params["exceptionDetails"].to_string());
            }
            Some("Runtime.consoleAPICalled")
                if params["type"] == "error" || params["type"] == "warning" =>
            {
                self.complaints.push(params["args"].to_string());
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push(params["entry"].to_string());
            }
            Some(_) => self.events.push_back(event),
            None => {}
        }
    }

    /// Opens an address, and waits until it has loaded.
    ///
    /// # Errors
    /// Where it cannot be loaded.
    pub fn go(&mut self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", &json!({"url": url}))?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        self.wait("document.readyState === 'complete'")
    }

    /// What an expression comes to. Promises are waited for.
    ///
    /// # Errors
    /// Where it throws.
    pub fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let done = self.call("Runtime.evaluate", &params)?;
        let thrown = &done["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {thrown}");
        Ok(done["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// When it does not get so in time; the error has the page's text.
    pub fn wait(&mut self, expression: &str) -> Result<()> {
        let waited =
            wait_for(expression, WITHIN, || Ok((self.eval(expression)? == true).then_some(())));
        if waited.is_err() {
            let text = self.eval("document.body.innerText").unwrap_or_default();
            let complaints = &self.complaints;
            return waited
                .with_context(|| format!("the page says {text}, its console {complaints:?}"));
        }
        waited
    }

    /// Presses a key: `Tab`, `Enter`.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => bail!("no such key: {key}"),
        };
        let mut event = json!({"key": key, "code": key, "windowsVirtualKeyCode": code});
        for kind in ["keyDown", "keyUp"] {
            event["type"] = json!(kind);
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Makes the window as large as this.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size)?;
        Ok(())
    }

    /// What somebody prefers: `("prefers-color-scheme", "dark")`.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn prefer(&mut self, feature: &str, value: &str) -> Result<()> {
        let features = json!({"features": [{"name": feature, "value": value}]});
        self.call("Emulation.setEmulatedMedia", &features)?;
        Ok(())
    }

    /// What is told to who cannot see the page; nothing that is left out for them.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn spoken(&mut self) -> Result<Vec<Spoken>> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree["nodes"].as_array().context("no nodes")?.iter();
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let told = nodes.filter(|node| node["ignored"] != true);
        Ok(told.map(|it| Spoken { role: text(&it["role"]), name: text(&it["name"]) }).collect())
    }

    /// Takes a picture of the window, or of the whole page.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn picture(&mut self, path: &Path, whole: bool) -> Result<()> {
        let params = json!({"format": "png", "captureBeyondViewport": whole});
        let taken = self.call("Page.captureScreenshot", &params)?;
        let data = taken["data"].as_str().context("no picture")?;
        fs::create_dir_all(path.parent().context("no directory")?)?;
        fs::write(path, base64(data)?)?;
        Ok(())
    }

    /// Every address that was asked for.
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// What the console says of errors and warnings.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("browser.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("\nthe browser says:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session.clear();
        let _ = self.call("Browser.close", &json!({}));
        // What it has started ends with it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.dir.join("profile"));
    }
}

/// Reads base64.
fn base64(text: &str) -> Result<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for letter in text.bytes().take_while(|letter| *letter != b'=') {
        let value = LETTERS.iter().position(|one| *one == letter).context("not base64")?;
        held = held << 6 | u32::try_from(value)?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Ok(bytes)
}
