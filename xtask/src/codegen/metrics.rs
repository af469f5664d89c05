//! The tables of `docs/reference/metrics.md`, made of the declarations of metrics in the sources. What stands between
//! them is written by hand:
//!
//! ```text
//! <!-- metrics of FILE FILE -->
//! | made |
//! <!-- end of metrics -->
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use syn::visit::{self, Visit};

use crate::{
    lint::tree::{self, File},
    workspace::Workspace,
};

/// The page.
pub(crate) const REFERENCE: &str = "docs/reference/metrics.md";
/// Begins a name; the last are the ones that every process has.
pub(crate) const PREFIXES: [&str; 3] = ["undermesh_", "istio_", "process_"];
const BEGIN: &str = "<!-- metrics of ";
const END: &str = "<!-- end of metrics -->";

/// A metric as the sources declare it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Of the family.
    name: String,
    pub(crate) kind: String,
    labels: Vec<Label>,
    meaning: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Label {
    Own(String),
    /// Many that several metrics have, which the page describes under this name.
    Shared(String),
}

impl Declared {
    /// As a scrape has it.
    pub(crate) fn exposed(&self) -> String {
        let end = match &*self.kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("{}{end}", self.name)
    }

    fn row(&self) -> String {
        let labels = self.labels.iter().map(|label| match label {
            Label::Own(name) => format!("`{name}`"),
            Label::Shared(name) => format!("[{name}](#{name})"),
        });
        let labels: Vec<String> = labels.collect();
        let cells = [
            format!("`{}`", self.exposed()),
            self.kind.clone(),
            labels.join(", "),
            self.meaning.replace('|', "\\|"),
        ];
        let filled = cells.map(|cell| if cell.is_empty() { cell } else { format!("{cell} ") });
        format!("| {}|\n", filled.join("| "))
    }

    fn check(&self) -> Result<()> {
        let name = &self.name;
        ensure!(PREFIXES.iter().any(|it| name.starts_with(it)), "`{name}` has no known prefix");
        let ends = ["_total", "_info", "_bucket", "_sum", "_count"];
        let end = ends.iter().find(|end| name.ends_with(**end));
        ensure!(end.is_none(), "`{name}`: an exposition adds such an end by itself");
        ensure!(!self.meaning.is_empty(), "`{name}` has no meaning");
        Ok(())
    }
}

/// All declarations, by the file that they stand in.
pub(crate) fn declared(sources: &[File]) -> Result<BTreeMap<&Path, Vec<Declared>>> {
    let (mut all, mut names) = (BTreeMap::new(), BTreeSet::new());
    for file in sources.iter().filter(|file| file.text.contains("Metric::") && !is_test(file)) {
        let place = || file.path.display().to_string();
        let found = of_file(&file.text).with_context(place)?;
        for metric in &found {
            metric.check().with_context(place)?;
            ensure!(names.insert(metric.name.clone()), "`{}` is declared twice", metric.name);
        }
        if !found.is_empty() {
            all.insert(&*file.path, found);
        }
    }
    Ok(all)
}

/// Tests make up metrics.
pub(crate) fn is_test(file: &File) -> bool {
    file.path.components().any(|part| {
        let part = part.as_os_str();
        part == "tests" || part == "tests.rs" || part == "testing.rs"
    })
}

/// Texts of a list, by the name of the constant.
type Lists<'a> = BTreeMap<String, &'a syn::Expr>;

struct Declarations<'a> {
    lists: Lists<'a>,
    found: Vec<Result<Declared>>,
}

fn of_file(text: &str) -> Result<Vec<Declared>> {
    let file = syn::parse_file(text)?;
    let constants = file.items.iter().filter_map(|item| match item {
        syn::Item::Const(item) => Some((item.ident.to_string(), &*item.expr)),
        _ => None,
    });
    let mut declarations = Declarations { lists: constants.collect(), found: Vec::new() };
    declarations.visit_file(&file);
    declarations.found.into_iter().collect()
}

impl<'ast> Visit<'ast> for Declarations<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        if let syn::Expr::Call(call) = &*item.expr
            && let syn::Expr::Path(path) = &*call.func
            && let Some((kind, owner)) = last_two(&path.path)
            && owner == "Metric"
        {
            let metric = declaration(kind, call, &self.lists);
            self.found.push(metric.with_context(|| format!("the metric {}", item.ident)));
        }
    }
}

fn last_two(path: &syn::Path) -> Option<(String, String)> {
    let mut parts = path.segments.iter().rev().map(|part| part.ident.to_string());
    Some((parts.next()?, parts.next()?))
}

fn declaration(kind: String, call: &syn::ExprCall, lists: &Lists<'_>) -> Result<Declared> {
    let mut arguments = call.args.iter();
    let (Some(name), Some(labels), Some(meaning), None) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        bail!("has a name, labels and a meaning");
    };
    let labels = labels_of(labels, lists)?;
    Ok(Declared { name: text(name)?, kind, labels, meaning: text(meaning)? })
}

fn text(expression: &syn::Expr) -> Result<String> {
    if let syn::Expr::Lit(literal) = expression
        && let syn::Lit::Str(text) = &literal.lit
    {
        return Ok(text.value());
    }
    bail!("is declared with literals");
}

fn labels_of(expression: &syn::Expr, lists: &Lists<'_>) -> Result<Vec<Label>> {
    match expression {
        syn::Expr::Reference(reference) => labels_of(&reference.expr, lists),
        syn::Expr::Array(array) => array.elems.iter().map(label).collect(),
        syn::Expr::Path(path) => {
            let name = path.path.get_ident().map(ToString::to_string).unwrap_or_default();
            let list = lists.get(&name).with_context(|| format!("{name:?} is not in this file"))?;
            labels_of(list, &BTreeMap::new())
        }
        _ => bail!("has its labels in a list"),
    }
}

fn label(expression: &syn::Expr) -> Result<Label> {
    if let syn::Expr::Path(path) = expression
        && let Some(part) = path.path.segments.last()
    {
        return Ok(Label::Shared(part.ident.to_string().to_lowercase()));
    }
    text(expression).map(Label::Own)
}

/// The page as it is, and as it is to be.
pub(crate) fn page(workspace: &Workspace) -> Result<(String, String)> {
    let sources = tree::files(workspace, "agent", "rs")?;
    let path = workspace.root().join(REFERENCE);
    let there = std::fs::read_to_string(&path).with_context(|| format!("no {REFERENCE}"))?;
    let made = filled(&there, &declared(&sources)?)?;
    Ok((there, made))
}

/// The page with what belongs between the marks.
fn filled(page: &str, declared: &BTreeMap<&Path, Vec<Declared>>) -> Result<String> {
    let (mut made, mut rest) = (String::new(), page);
    let mut left: BTreeSet<&Path> = declared.keys().copied().collect();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (files, after) = after.split_once(" -->\n").context("a mark has no end")?;
        let (_, after) = after.split_once(END).with_context(|| format!("no {END:?}"))?;
        let _ = writeln!(made, "{before}{BEGIN}{files} -->");
        made.push_str("| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for file in files.split(' ').map(Path::new) {
            let shown = file.display();
            ensure!(left.remove(file), "{shown} declares no metrics, or has another table");
            made.extend(declared[file].iter().map(Declared::row));
        }
        made.push_str(END);
        rest = after;
    }
    let shown = left.first().map(|file| file.display().to_string());
    ensure!(left.is_empty(), "metrics of {} have no table", shown.unwrap_or_default());
    Ok(made + rest)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const SOURCE: &str = r#"
        use x::Metric;
        const LABELS: &[&str] = &[x::ENDS, "c"];
        static A: Metric = Metric::counter("undermesh_a", &["l", "m"], "one \
            thing, see [it](a.md)");
        pub(crate) static B: Metric = x::Metric::gauge("undermesh_b_bytes", &[], "`a|b`");
        static C: Metric = Metric::histogram("istio_c", LABELS, "more");
        mod tests { static D: Metric = Metric::gauge("undermesh_d", &[], "made up"); }
    "#;

    fn file(path: &str, text: &str) -> File {
        File { path: PathBuf::from(path), text: text.to_owned() }
    }

    fn complaint(declaration: &str) -> String {
        let source = file("agent/a.rs", &format!("static A: Metric = Metric::{declaration};"));
        format!("{:#}", declared(&[source]).unwrap_err())
    }

    #[test]
    fn tables_are_made_between_the_marks_and_nothing_else_is_changed() {
        let page =
            "# A\n\n<!-- metrics of agent/a.rs -->\n| old |\n<!-- end of metrics -->\n\nB.\n";
        let sources = [file("agent/a.rs", SOURCE)];
        let made = filled(page, &declared(&sources).unwrap()).unwrap();
        assert_eq!(
            made,
            "# A\n\n<!-- metrics of agent/a.rs -->\n| metric | type | labels | meaning |\n\
             |---|---|---|---|\n\
             | `undermesh_a_total` | counter | `l`, `m` | one thing, see [it](a.md) |\n\
             | `undermesh_b_bytes` | gauge | | `a\\|b` |\n\
             | `istio_c` | histogram | [ends](#ends), `c` | more |\n\
             <!-- end of metrics -->\n\nB.\n"
        );
        assert_eq!(filled(&made, &declared(&sources).unwrap()).unwrap(), made);
    }

    #[test]
    fn what_has_no_table_and_a_table_of_nothing_are_errors() {
        let sources = [file("agent/a.rs", SOURCE)];
        let declared = declared(&sources).unwrap();
        let error = |page: &str| filled(page, &declared).unwrap_err().to_string();
        assert_eq!(error("# A\n"), "metrics of agent/a.rs have no table");
        let other = "<!-- metrics of agent/a.rs agent/b.rs -->\n<!-- end of metrics -->";
        assert!(error(other).starts_with("agent/b.rs declares no metrics"));
        assert!(error("<!-- metrics of agent/a.rs -->\n").starts_with("no "));
    }

    #[test]
    fn a_declaration_is_one_that_can_be_read() {
        assert!(complaint("counter(NAME, &[], \"x\")").ends_with("is declared with literals"));
        assert!(complaint("counter(\"undermesh_a\", LABELS, \"x\")").contains("not in this file"));
        assert!(complaint("counter(\"a\", &[], \"x\")").ends_with("`a` has no known prefix"));
        assert!(complaint("gauge(\"undermesh_a_total\", &[], \"x\")").contains("adds such an end"));
        assert!(complaint("gauge(\"undermesh_a\", &[], \"\")").ends_with("has no meaning"));
        let twice = [file("agent/a.rs", SOURCE), file("agent/b.rs", SOURCE)];
        assert!(declared(&twice).unwrap_err().to_string().contains("declared twice"));
        assert!(declared(&[file("agent/a/tests.rs", SOURCE)]).unwrap().is_empty());
    }
}
