//! What criterion has found and written into files: `GROUP/FUNCTION/new/benchmark.json` says what was
//! measured, `estimates.json` beside it how long it took.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

const MEBIBYTE: f64 = (1 << 20) as f64;

/// How long one step takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::bench) struct Measured {
    group: String,
    name: String,
    /// Nanoseconds, and between which bounds they are with 95 % confidence.
    time: f64,
    low: f64,
    high: f64,
    /// Bytes that it gets through.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Bytes")]
    bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Estimates {
    mean: Estimate,
    /// Where samples are of different length: less disturbed than the mean.
    slope: Option<Estimate>,
}

#[derive(Deserialize)]
struct Estimate {
    confidence_interval: Interval,
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// All that was measured since then, in the order in which it was.
pub(super) fn since(home: &Path, began: SystemTime) -> Result<Vec<Measured>> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for group in directories(home)? {
        for function in directories(&group)? {
            let new = function.join("new");
            let Ok(estimates) = fs::metadata(new.join("estimates.json")) else { continue };
            let written = estimates.modified()?;
            if written >= began {
                found.push((written, new));
            }
        }
    }
    found.sort();
    let text = |path: PathBuf| {
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let measured = |(_, new): (SystemTime, PathBuf)| {
        measured(&text(new.join("benchmark.json"))?, &text(new.join("estimates.json"))?)
            .with_context(|| format!("{} is not as criterion writes it", new.display()))
    };
    found.into_iter().map(measured).collect()
}

fn directories(of: &Path) -> Result<Vec<PathBuf>> {
    if !of.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(of).with_context(|| format!("cannot read {}", of.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

fn measured(benchmark: &str, estimates: &str) -> Result<Measured> {
    let benchmark: Benchmark = serde_json::from_str(benchmark)?;
    let Estimates { mean, slope } = serde_json::from_str(estimates)?;
    let Estimate { confidence_interval, point_estimate } = slope.unwrap_or(mean);
    Ok(Measured {
        group: benchmark.group_id,
        name: benchmark.function_id.unwrap_or_default(),
        time: point_estimate,
        low: confidence_interval.lower_bound,
        high: confidence_interval.upper_bound,
        bytes: benchmark.throughput.and_then(|throughput| throughput.bytes),
    })
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, name, time, low, high, bytes } = self;
        let what = format!("{group}: {name}");
        let between = format!("[{} {}]", duration(*low), duration(*high));
        write!(f, "{what:<64} {:>10} {between:<24}", duration(*time))?;
        if let Some(bytes) = bytes {
            let rate = *bytes as f64 / MEBIBYTE / (time / 1e9);
            write!(f, "{rate:>8.0} MiB/s")?;
        }
        Ok(())
    }
}

/// Nanoseconds with three digits that count.
fn duration(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
    let unit = units.into_iter().find(|(size, _)| nanoseconds >= *size);
    let (size, name) = unit.unwrap_or((1.0, "ns"));
    let number = nanoseconds / size;
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BENCHMARK: &str = r#"{"group_id":"framing","function_id":"DATA","value_str":null,
        "throughput":{"Bytes":1048576},"full_id":"framing/DATA","directory_name":"framing/DATA"}"#;
    const ESTIMATES: &str = r#"{"mean":{"confidence_interval":{"confidence_level":0.95,
        "lower_bound":1.0,"upper_bound":3.0},"point_estimate":2.0,"standard_error":0.1},
        "slope":{"confidence_interval":{"confidence_level":0.95,"lower_bound":999000.0,
        "upper_bound":1010000.0},"point_estimate":1000000.0,"standard_error":0.1}}"#;

    #[test]
    fn what_criterion_has_written_since_then_is_found() {
        let home = std::env::temp_dir().join(format!("xtask-micro-{}", std::process::id()));
        let new = home.join("framing/DATA/new");
        fs::create_dir_all(&new).unwrap();
        fs::create_dir_all(home.join("report")).unwrap();
        fs::write(new.join("benchmark.json"), BENCHMARK).unwrap();
        fs::write(new.join("estimates.json"), ESTIMATES).unwrap();
        let (before, after) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(60));
        let found = since(&home, before).unwrap();
        let none = since(&home, after).unwrap();
        fs::remove_dir_all(&home).unwrap();
        assert_eq!(none, []);
        assert_eq!(found.len(), 1);
        let text = found[0].to_string();
        for part in ["framing: DATA ", "1.00 ms [999 us 1.01 ms]", "1000 MiB/s"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_mean_is_taken_where_there_is_no_slope() {
        let estimates = ESTIMATES.split_once(",\n        \"slope\"").unwrap().0.to_owned() + "}";
        let benchmark = r#"{"group_id":"g","function_id":null,"throughput":null}"#;
        let found = measured(benchmark, &estimates).unwrap();
        assert_eq!((found.time, found.low, found.high, found.bytes), (2.0, 1.0, 3.0, None));
        assert!(measured("{}", &estimates).is_err());
    }

    #[test]
    fn durations_have_three_digits() {
        let said = [0.5, 12.34, 999.0, 1234.0, 56_780_000.0, 2e9].map(duration);
        assert_eq!(said, ["0.50 ns", "12.3 ns", "999 ns", "1.23 us", "56.8 ms", "2.00 s"]);
    }
}
