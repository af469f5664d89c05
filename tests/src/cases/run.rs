//! Runs the cases of a directory.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    case::{Case, Exchange, Protocol},
    counters::Counters,
    judge,
    shop::Shop,
    tls::client_hello,
};
use crate::{
    pod::{
        PATIENCE,
        http::{Ask, MARK, PLAN, Reply, Speaks},
    },
    poll::wait_for,
};

/// Tells the states of one process apart.
static MARK_OF_STATE: AtomicU32 = AtomicU32::new(0);
/// Shorter than clients wait for an answer.
const HELD_WITHIN: Duration = Duration::from_secs(8);
/// Runs only cases whose name contains this, to work on one.
const ONLY: &str = "CASE";

/// Runs all cases of a directory below `tests/tests/cases`, and fails with everything that failed.
///
/// # Errors
/// Where a case fails, or there is none.
pub fn run(directory: &str) -> Result<()> {
    let shop = Shop::open()?;
    let only = env::var(ONLY).unwrap_or_default();
    let (mut count, mut failures) = (0, Vec::new());
    for file in files(directory)? {
        let group = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let cases = Case::read(&file, |text| shop.put_in(text))?;
        for case in cases.iter().filter(|case| case.case.contains(&only)) {
            count += 1;
            let name = format!("{directory}/{group}::{}", case.case);
            if let Err(error) = play(&shop, &name, case) {
                failures.push(format!("{name}\n    {error:#}"));
            }
        }
    }
    ensure!(count > 0, "no case in {directory}");
    if !failures.is_empty() {
        bail!("{} of {count} cases failed:\n\n{}", failures.len(), failures.join("\n\n"));
    }
    Ok(())
}

fn files(directory: &str) -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(directory);
    let entries =
        fs::read_dir(&directory).with_context(|| format!("no cases in {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// Puts the objects of a case in force and makes its requests.
fn play(shop: &Shop, name: &str, case: &Case) -> Result<()> {
    put_in_force(shop, name, case)?;
    for (number, exchange) in case.requests.iter().enumerate() {
        let mut round = 0;
        let mut once = || {
            // Found again among all that a server has heard.
            let mark = format!("{name}/{number}/{round}");
            round += 1;
            let before = judge::Before::note(shop, &exchange.answer)?;
            let counters = Counters::before(shop, exchange)?;
            let replies = ask(shop, exchange, &mark, &counters)?;
            judge::judge(shop, exchange, &mark, &replies)?;
            before.judge(shop, &exchange.answer)?;
            counters.judge(shop)
        };
        let done = match exchange.eventually {
            false => once(),
            true => wait_for("the right answer", PATIENCE, || once().map(Some)),
        };
        done.with_context(|| format!("request {}, {}", number + 1, Asked(exchange)))?;
    }
    Ok(())
}

fn put_in_force(shop: &Shop, name: &str, case: &Case) -> Result<()> {
    // Different for each case, so that agents always have something to say about it.
    let mut yaml = format!("# {name}\n");
    let marked = format!("case-{}", MARK_OF_STATE.fetch_add(1, Ordering::Relaxed));
    let mark =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": marked}});
    for object in case.objects.iter().chain([&mark]) {
        yaml.push_str(&format!("---\n{object}\n"));
    }
    let log = shop.rig.submit("case", &yaml)?;
    if let Some(words) = &case.refused {
        ensure!(log.contains("configuration rejected"), "was not refused; the log:\n{log}");
        ensure!(log.contains(words), "was not refused with {words:?}; the log:\n{log}");
        return Ok(());
    }
    ensure!(log.contains("configuration in force"), "was refused; the log:\n{log}");
    let wanted: BTreeSet<String> = case.reports.iter().cloned().collect();
    let reported: BTreeSet<String> = log.lines().filter_map(code).collect();
    ensure!(reported == wanted, "reports {reported:?} instead of {wanted:?}; the log:\n{log}");
    Ok(())
}

/// The code of a finding; warnings and errors only.
fn code(line: &str) -> Option<String> {
    if !line.contains("WARN") && !line.contains("ERROR") {
        return None;
    }
    let is_code =
        |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let mut brackets = line.split('[').filter_map(|part| Some(part.split_once(']')?.0));
    brackets.rfind(is_code).map(str::to_owned)
}

fn ask(
    shop: &Shop,
    exchange: &Exchange,
    mark: &str,
    counters: &Counters<'_>,
) -> Result<Vec<Reply>> {
    let (client, ask) = (shop.client(&exchange.from)?, request(shop, exchange, mark)?);
    if exchange.held == 0 {
        return Ok(client.ask(ask)?);
    }
    thread::scope(|scope| {
        let asked = scope.spawn(|| client.ask(ask));
        let waited = wait_for("requests to be held, and counted", HELD_WITHIN, || {
            let held = shop.servers().map(|server| Ok(server.heard(mark)?.len()));
            let held: usize = held.sum::<Result<_>>()?;
            ensure!(held >= exchange.held, "{held} are held");
            counters.are_as_expected(shop).map(Some)
        });
        shop.servers().try_for_each(|server| server.release(mark))?;
        let replies = asked.join().map_err(|_| anyhow!("whoever asked has panicked"))??;
        waited.with_context(|| format!("the answers: {replies:?}"))?;
        Ok(replies)
    })
}

fn request(shop: &Shop, exchange: &Exchange, mark: &str) -> Result<Ask> {
    let service = exchange.to.split([':', '@']).next().unwrap_or_default();
    let mut headers = exchange.headers.clone();
    headers.insert(MARK.to_owned(), mark.to_owned());
    headers.extend(exchange.plan.clone().map(|plan| (PLAN.to_owned(), plan)));
    let mut line = exchange.ask.clone();
    if let Some(token) = &exchange.token {
        let token = shop.sign(token)?;
        let placed = |text: &String| text.contains("$token");
        if !placed(&line) && !headers.values().any(placed) {
            headers.insert("authorization".to_owned(), "Bearer $token".to_owned());
        }
        line = line.replace("$token", &token);
        for value in headers.values_mut() {
            *value = value.replace("$token", &token);
        }
    }
    let (method, path) = line.split_once(' ').unwrap_or(("POST", &line));
    let (speaks, body) = match exchange.by {
        Protocol::Http1 => (Speaks::Http1, exchange.body.clone().into_bytes()),
        Protocol::Http2 => (Speaks::Http2, exchange.body.clone().into_bytes()),
        Protocol::Grpc => (Speaks::Grpc, exchange.body.clone().into_bytes()),
        Protocol::Websocket => {
            headers.insert("connection".to_owned(), "upgrade".to_owned());
            headers.insert("upgrade".to_owned(), "websocket".to_owned());
            (Speaks::WebSocket, exchange.body.clone().into_bytes())
        }
        Protocol::Tcp => (Speaks::Tcp, exchange.ask.clone().into_bytes()),
        Protocol::Tls => (Speaks::Tcp, client_hello(&exchange.ask)),
    };
    Ok(Ask {
        speaks,
        to: Some(shop.address(&exchange.to, exchange.ipv6)?),
        method: method.to_owned(),
        path: path.to_owned(),
        authority: exchange.host.clone().unwrap_or_else(|| service.to_owned()),
        headers,
        body,
        times: exchange.times,
        at_once: exchange.at_once,
        cookies: exchange.cookies,
    })
}

/// A request in a line.
struct Asked<'a>(&'a Exchange);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exchange { ask, from, to, headers, .. } = self.0;
        write!(f, "{ask:?} from {from} to {to}")?;
        if !headers.is_empty() {
            write!(f, " with {headers:?}")?;
        }
        Ok(())
    }
}
