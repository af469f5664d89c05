//! `undermesh flows --all-nodes` and `--node`: records of several agents of a cluster as one stream, by time.
//!
//! Each agent is asked for its own page, through the API server, from where it stopped; nothing is kept for it at the
//! other end. One that does not answer is said to, asked again less and less often, and keeps no other from being shown.

use std::{
    collections::BTreeMap,
    io::{BufWriter, ErrorKind, Write as _, stdout},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use undermesh_control::ApiServer;

use super::{
    FlowsArgs, Tally,
    merge::{Line, Merge},
    print::Of,
};
use crate::{
    agent,
    cluster::{self, Place, Reach, each_as_it_comes},
};

/// How often a follower asks.
const EVERY: Duration = Duration::from_secs(1);
/// How often it looks which agents there are.
const LOOK: Duration = Duration::from_secs(15);
/// Longest time until one that does not answer is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Agents that are asked at once.
const AT_ONCE: usize = 8;
/// Largest answer of one; as many records as one may keep are about as large.
const MOST_ANSWER: usize = 64 << 20;
/// Records that are held to be put in order, in bytes.
const MOST_HELD: usize = 64 << 20;

/// Prints what is kept on these nodes, and with `--follow` what comes.
pub(super) fn run(args: &FlowsArgs) -> Result<ExitCode> {
    let filters = args.filters()?;
    cluster::run(async {
        let api = args.cluster.api().await?;
        let mut watch = Watch::new(args, &api, filters);
        watch.look().await?;
        ensure!(!watch.agents.is_empty(), "there is no agent to ask");
        let ended = if args.follow {
            tokio::select! {
                ended = watch.follow() => ended,
                signal = agent::wait_for_signal() => signal.map(|()| true),
            }
        } else {
            watch.once().await
        };
        let all_answered = ended?;
        watch.sum();
        Ok(if all_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// One agent, and how far it has been read.
struct Agent {
    node: Arc<str>,
    pod: String,
    reach: Reach,
    after: Option<u64>,
    failing: Option<Failing>,
}

/// It does not answer.
#[derive(Clone, Copy)]
struct Failing {
    pause: Duration,
    again: Instant,
}

struct Watch<'a> {
    args: &'a FlowsArgs,
    api: &'a ApiServer,
    filters: String,
    agents: Vec<Agent>,
    /// Nodes that were said to have no agent.
    without: Vec<String>,
    merge: Merge,
    tallies: BTreeMap<Arc<str>, Tally>,
    round: u64,
    /// Of the longest name of a node.
    width: usize,
    /// Somebody reads what is printed.
    is_read: bool,
}

impl<'a> Watch<'a> {
    fn new(args: &'a FlowsArgs, api: &'a ApiServer, filters: String) -> Self {
        Self {
            args,
            api,
            filters,
            agents: Vec::new(),
            without: Vec::new(),
            merge: Merge::new(MOST_HELD),
            tallies: BTreeMap::new(),
            round: 0,
            width: 0,
            is_read: true,
        }
    }

    /// Everything that is kept. Says whether all nodes have answered.
    async fn once(&mut self) -> Result<bool> {
        let answered = self.ask().await?;
        if let Some(last) = self.args.last {
            self.merge.keep_newest(last);
        }
        let lines = self.merge.rest();
        self.print(lines)?;
        Ok(answered && self.without.is_empty())
    }

    /// Until nobody reads any more.
    async fn follow(&mut self) -> Result<bool> {
        let mut looked = Instant::now();
        while self.is_read {
            let began = now();
            self.ask().await?;
            if let (Some(last), 1) = (self.args.last, self.round) {
                self.merge.keep_newest(last);
            }
            let due = self.merge.due(self.round, &began);
            self.print(due)?;
            tokio::time::sleep(EVERY).await;
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                if let Err(error) = self.look().await {
                    eprintln!("{error:#}; those that are known go on");
                }
            }
        }
        Ok(true)
    }

    /// Learns which agents there are. Of a node's new agent, everything is new.
    async fn look(&mut self) -> Result<()> {
        let (args, namespace) = (self.args, self.args.cluster.namespace());
        let mut places = cluster::agents(self.api, namespace).await?;
        let mut without = args.node.clone();
        if args.node.is_empty() {
            without = cluster::node_names(self.api).await?;
        } else {
            places.retain(|place| args.node.contains(&place.node));
        }
        without.retain(|node| !places.iter().any(|place| place.node == *node));
        for node in without.iter().filter(|node| !self.without.contains(node)) {
            eprintln!("node {node}: no agent runs here");
        }
        self.without = without;
        self.agents.retain(|agent| {
            let is_there = places.iter().any(|place| *place.node == *agent.node);
            if !is_there && !self.without.iter().any(|node| **node == *agent.node) {
                eprintln!("node {}: it has gone", agent.node);
            }
            is_there
        });
        for Place { node, pod, ports, .. } in places {
            self.width = self.width.max(node.chars().count());
            let reach = Reach::new(self.api, namespace, &pod, args.admin.port(ports));
            match self.agents.iter_mut().find(|agent| *agent.node == *node) {
                Some(known) if known.pod == pod => {}
                Some(known) => (known.pod, known.reach, known.failing) = (pod, reach, None),
                None => self.agents.push(Agent {
                    node: node.into(),
                    pod,
                    reach,
                    after: None,
                    failing: None,
                }),
            }
        }
        Ok(())
    }

    /// One round. Says whether all have answered.
    async fn ask(&mut self) -> Result<bool> {
        self.round += 1;
        let is_first = self.round == 1;
        let last = self.args.last.filter(|_| is_first).map(|last| format!("&last={last}"));
        let last = last.unwrap_or_default();
        let now = Instant::now();
        let is_due = |agent: &mut Agent| agent.failing.is_none_or(|it| it.again <= now);
        let asked: Vec<Agent> = self.agents.extract_if(.., is_due).collect();
        let (mut good, mut first_error) = (self.agents.is_empty(), None);
        let mut answered = 0;
        let filters = self.filters.clone();
        let ask = |mut agent: Agent| {
            let after = agent.after.map(|after| format!("&after={after}")).unwrap_or_default();
            let page = format!("/flows?cursor=1{last}{after}{filters}");
            async move {
                let said = agent.reach.get(&page, MOST_ANSWER).await;
                (agent, said)
            }
        };
        each_as_it_comes(asked, AT_ONCE, ask, |(mut agent, said)| {
            match said.and_then(|page| self.take(&mut agent, &page)) {
                Ok(()) => {
                    answered += 1;
                    if agent.failing.take().is_some() {
                        eprintln!("node {}: it answers again", agent.node);
                    }
                }
                Err(error) => {
                    good = false;
                    agent.fail(&error);
                    first_error.get_or_insert(error);
                }
            }
            self.agents.push(agent);
        })
        .await;
        match first_error {
            Some(error) if is_first && answered == 0 => Err(error.context("no agent answers")),
            _ => Ok(good),
        }
    }

    /// Takes a page apart. Of one that is not whole nothing is taken: it is asked for again.
    fn take(&mut self, agent: &mut Agent, page: &str) -> Result<()> {
        let read = |line: &str| -> Result<Value> {
            serde_json::from_str(line).context("what it answers are no flow records")
        };
        let cursor = read(page.lines().next_back().unwrap_or_default())?;
        let next = cursor["next"].as_u64().filter(|_| cursor["event"] == "cursor");
        let next = next.context("it does not say where its flow records go on; is it older?")?;
        let mut lost = None;
        for line in page.lines() {
            let record = read(line)?;
            match record["event"].as_str() {
                Some("cursor") => {}
                Some("lost") => {
                    let count = record["count"].as_u64().unwrap_or_default();
                    self.tally(&agent.node).lost += count;
                    lost = Some(line);
                }
                _ => {
                    let time = record["time"].as_str().unwrap_or_default();
                    // It has no time of its own, and is of what comes before this.
                    if let Some(lost) = lost.take() {
                        self.hold(&agent.node, time, lost);
                    }
                    self.hold(&agent.node, time, line);
                }
            }
        }
        if let Some(lost) = lost {
            self.hold(&agent.node, &now(), lost);
        }
        self.tally(&agent.node).cursor(&cursor);
        agent.after = Some(next);
        Ok(())
    }

    fn tally(&mut self, node: &Arc<str>) -> &mut Tally {
        self.tallies.entry(Arc::clone(node)).or_default()
    }

    fn hold(&mut self, node: &Arc<str>, time: &str, line: &str) {
        for gone in self.merge.push(self.round, node, time, line.to_owned()) {
            self.tally(&gone.node).not_held += 1;
        }
    }

    /// A closed pipe is a quiet end.
    fn print(&mut self, lines: Vec<Line>) -> Result<()> {
        let mut out = BufWriter::new(stdout().lock());
        let write = || -> Result<()> {
            for Line { node, text: line, .. } in lines {
                let record: Value = serde_json::from_str(&line)?;
                let tally = self.tallies.entry(Arc::clone(&node)).or_default();
                tally.records += u64::from(record["event"] != "lost");
                let of = Some(Of { node: &node, width: self.width });
                writeln!(out, "{}", self.args.output.line(&record, &line, of))?;
            }
            Ok(out.flush()?)
        };
        match write() {
            Err(error) if is_closed(&error) => self.is_read = false,
            written => written?,
        }
        Ok(())
    }

    /// What was not shown, of each node, where something was not; not among the records, which may go on to a program.
    fn sum(&self) {
        for (node, tally) in self.tallies.iter().filter(|_| self.is_read) {
            if let Some(sum) = tally.sum() {
                eprintln!("node {node}: {sum}");
            }
        }
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

impl Agent {
    fn fail(&mut self, error: &anyhow::Error) {
        let pause = match self.failing {
            Some(failing) => (failing.pause * 2).min(LONGEST_PAUSE),
            None => {
                eprintln!("node {}: {error:#}", self.node);
                EVERY
            }
        };
        self.failing = Some(Failing { pause, again: Instant::now() + pause });
    }
}
