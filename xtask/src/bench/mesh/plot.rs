//! Plots: bars relative to no mesh, as SVG that needs no font, script or style of its own and is
//! readable on light and dark pages.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    measured::Memory,
    outcome::{Outcome, Row},
    way::Way,
    work::Work,
};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 150.0;
const VALUES: f64 = 150.0;
const BAR: f64 = 14.0;
const GAP: f64 = 5.0;
const TITLE: f64 = 34.0;
const MEBIBYTE: f64 = (1 << 20) as f64;

/// A bar, with what is written beside it.
struct Bar {
    way: Way,
    value: f64,
    /// Where the quartiles are.
    spread: Option<(f64, f64)>,
    text: String,
}

/// Bars of one kind of work.
struct Group {
    title: String,
    bars: Vec<Bar>,
}

/// Writes all plots into a directory.
pub(super) fn write(outcome: &Outcome, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let ratio = |of: fn(&Row) -> Option<crate::bench::compare::Ratio>| {
        groups(outcome, move |row| {
            let ratio = of(row)?;
            let spread = Some((ratio.lower, ratio.upper));
            let text = format!("{:.2}", ratio.median);
            Some(Bar { way: row.variant, value: ratio.median, spread, text })
        })
    };
    let latency = groups(outcome, |row| {
        let found = (row.load == Work::OpenLoop).then_some(row.latency?)?;
        let text = format!("{:.2} (p50 {:.2}) ms", found.p99, found.p50);
        let spread = Some((found.p50, found.p99));
        Some(Bar { way: row.variant, value: found.p99, spread, text })
    });
    let memory = |title: &str, unit: &str, of: fn(&Memory) -> f64| {
        let bar = |memory: &Memory| {
            let text = format!("{:.1} {unit}", of(memory));
            Bar { way: memory.variant, value: of(memory).max(0.0), spread: None, text }
        };
        Group { title: title.to_owned(), bars: outcome.memory.iter().map(bar).collect() }
    };
    let mut both = vec![
        memory("working on 32 connections", "MiB", |it| it.working as f64 / MEBIBYTE),
        memory("each idle connection", "KiB", |it| it.per_connection() / 1024.0),
    ];
    both.retain(|group| !group.bars.is_empty());
    for (name, title, groups) in [
        (
            "rate",
            "Work a second, relative to no mesh (more is better)",
            ratio(|row| row.rate_ratio),
        ),
        (
            "cpu",
            "The machine's CPU for a piece of work, relative to no mesh (less is better)",
            ratio(|row| row.cpu_ratio),
        ),
        (
            "latency",
            "Latency: 99th percentile; the line begins at the median (less is better)",
            latency,
        ),
        ("memory", "Resident memory of the mesh's processes (less is better)", both),
    ] {
        if !groups.is_empty() {
            let path = dir.join(format!("{name}.svg"));
            fs::write(&path, svg(title, &groups))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

fn groups(outcome: &Outcome, bar: impl Fn(&Row) -> Option<Bar>) -> Vec<Group> {
    let group = |work: Work| Group {
        title: work.title(),
        bars: outcome.rows.iter().filter(|row| row.load == work).filter_map(&bar).collect(),
    };
    Work::ALL.into_iter().map(group).filter(|group| !group.bars.is_empty()).collect()
}

fn svg(title: &str, groups: &[Group]) -> String {
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = TITLE + groups.len() as f64 * TITLE + bars as f64 * (BAR + GAP) + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#888\">\n\
         <title>{title}</title>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n",
        title = escaped(title)
    );
    let mut y = TITLE;
    for group in groups {
        y += TITLE;
        let (at, title) = (y - 10.0, escaped(&group.title));
        let _ = writeln!(svg, "<text x=\"8\" y=\"{at}\" font-weight=\"bold\">{title}</text>");
        let most =
            group.bars.iter().map(|bar| bar.spread.map_or(bar.value, |(_, to)| to.max(bar.value)));
        let most = most.fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LABELS - VALUES) / most;
        for bar in &group.bars {
            draw(&mut svg, bar, y, scale);
            y += BAR + GAP;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, bar: &Bar, y: f64, scale: f64) {
    let (width, text, middle) = (bar.value * scale, y + BAR - 3.0, y + BAR / 2.0);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>",
        LABELS - 8.0,
        bar.way.name()
    );
    let _ = writeln!(
        svg,
        "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{}\"/>",
        colour(bar.way)
    );
    let mut end = width;
    if let Some((from, to)) = bar.spread {
        let (x1, x2) = (LABELS + from * scale, LABELS + to * scale);
        end = end.max(to * scale);
        let _ = writeln!(
            svg,
            "<line x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#333\" stroke-width=\"2\"/>"
        );
    }
    let x = LABELS + end + 6.0;
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{text}\">{}</text>", escaped(&bar.text));
}

fn colour(way: Way) -> &'static str {
    match way {
        Way::NoMesh | Way::NoMeshLocal => "#9aa0a6",
        Way::Floor => "#c9b458",
        Way::EnvoyL4 | Way::EnvoyL7 => "#c58bd6",
        Way::Local | Way::L4 | Way::L4Services | Way::L7 => "#2f8fd0",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::mesh::measured::{Measured, tests::sample};

    #[test]
    fn bars_are_as_long_as_what_they_show() {
        let mut measured = Measured::default();
        measured.add(Work::KeepAlive32, Way::NoMesh, sample(1000.0, 1.0, 1.0));
        measured.add(Work::KeepAlive32, Way::L4, sample(500.0, 1.0, 1.0));
        measured.add(Work::OpenLoop, Way::L4, sample(500.0, 1.0, 1.0));
        let (before, during) = (0, 4 << 10);
        let memory = Memory { variant: Way::L4, working: 10 << 20, connections: 1, before, during };
        measured.memory.push(memory);
        let dir = std::env::temp_dir().join(format!("plots-{}", std::process::id()));
        write(&Outcome::new(&measured), &dir).unwrap();
        let rate = fs::read_to_string(dir.join("rate.svg")).unwrap();
        let full = WIDTH - LABELS - VALUES;
        for width in [full, full / 2.0] {
            assert!(rate.contains(&format!("width=\"{width:.1}\"")), "{rate}");
        }
        assert!(fs::read_to_string(dir.join("latency.svg")).unwrap().contains("2.00 (p50 1.00)"));
        assert!(fs::read_to_string(dir.join("memory.svg")).unwrap().contains("10.0 MiB"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn text_cannot_end_its_element() {
        assert_eq!(escaped("a<b & c"), "a&lt;b &amp; c");
    }
}
