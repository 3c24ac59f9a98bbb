//! The lists of networks that `ip` rules name, and their changes while the process runs. A list that cannot be used
//! changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::time::sleep;

use weir_config::{
    Cidr, Code, Config, Diagnostic, NamedFile, Position, Severity, SourceFile, bounded,
};

use super::{Control, count, limits};
use crate::files;
use crate::limits::IP_LIST_BYTES_MAX;
use crate::obs::{MetricKind, MetricsPage, process, text};
use crate::plan::Plan;
use crate::tls::FileStamp;

/// What to do about lists that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingLists {
    /// Report them.
    Refuse,
    /// Skip them: the file is for another machine.
    Skip,
}

/// The lists that a configuration names, by path.
#[derive(Clone, Debug, Default)]
pub struct IpLists(BTreeMap<PathBuf, IpList>);

#[derive(Clone, Debug)]
struct IpList {
    /// The state of the file before it was read.
    stamp: Option<FileStamp>,
    networks: Vec<Cidr>,
}

impl IpLists {
    /// Reads all lists that `config` names. `name` is the configuration's own, for diagnostics.
    ///
    /// # Errors
    /// All errors in these lists.
    pub(super) fn read(
        config: &Config,
        name: &str,
        missing: MissingLists,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut lists = Self::default();
        let mut errors = Vec::new();
        for file in config.ip_lists() {
            let stamp = FileStamp::now(&file.path);
            let is_skipped = stamp.is_none() && missing == MissingLists::Skip;
            if is_skipped || lists.0.contains_key(&file.path) {
                continue;
            }
            let networks = read_list(&file.path).unwrap_or_else(|found| {
                errors.extend(found.into_iter().map(|error| error.at(file, name)));
                Vec::new()
            });
            lists
                .0
                .insert(file.path.clone(), IpList { stamp, networks });
        }
        match errors.is_empty() {
            true => Ok(lists),
            false => Err(bounded(errors)),
        }
    }

    /// Gives the rules of `plan` their networks.
    pub(super) fn give_to(&self, plan: &Plan) {
        let networks_of = |path: &Path| self.0.get(path).map(|list| list.networks.as_slice());
        for rules in plan.states.ip_rules() {
            if rules.lists().next().is_some() {
                rules.read_lists(networks_of);
            }
        }
    }

    /// The paths of the lists.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

/// Why a list cannot be used.
enum ListError {
    /// It cannot be read.
    File(String),
    /// A line is not a network.
    Line(Diagnostic),
}

impl ListError {
    /// The error about the list that `file` of the configuration `name` names.
    fn at(self, file: &NamedFile, name: &str) -> Diagnostic {
        match self {
            Self::Line(diagnostic) => diagnostic,
            Self::File(why) => Diagnostic {
                severity: Severity::Error,
                code: Code::NamedFile,
                message: format!("cannot read {}: {why}", file.path.display()),
                file: name.to_owned(),
                excerpt: file.excerpt.clone(),
                help: Vec::new(),
            },
        }
    }
}

/// Reads a list.
fn read_list(path: &Path) -> Result<Vec<Cidr>, Vec<ListError>> {
    let bytes = files::read(path, IP_LIST_BYTES_MAX)
        .map_err(|error| vec![ListError::File(error.to_string())])?;
    let text = String::from_utf8(bytes)
        .map_err(|_| vec![ListError::File("it is not UTF-8 text".to_owned())])?;
    parse_list(&path.display().to_string(), &text)
        .map_err(|errors| errors.into_iter().map(ListError::Line).collect())
}

/// Reads the text of a list: a network a line, with comments after `#`. Reports the first wrong lines.
fn parse_list(name: &str, text: &str) -> Result<Vec<Cidr>, Vec<Diagnostic>> {
    let mut networks = Vec::new();
    let mut errors = Vec::new();
    let mut at = 0;
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let entry = line.split('#').next().unwrap_or("");
        let network = entry.trim();
        if !network.is_empty() {
            match network.parse() {
                Ok(network) => networks.push(network),
                Err(error) => {
                    let error: weir_config::ValueError = error;
                    let start = at + entry.len() - entry.trim_start().len();
                    let position = Position::new(number, start..start + network.len());
                    let source = SourceFile::new(name, text);
                    let mut diagnostic = source.error(&position, Code::BadValue, error.message);
                    diagnostic.help.extend(error.help);
                    errors.push(diagnostic);
                    if errors.len() == LIST_ERRORS_MAX {
                        break;
                    }
                }
            }
        }
        at += line.len();
    }
    match errors.is_empty() {
        true => Ok(networks),
        false => Err(errors),
    }
}

/// Wrong lines of one list that are reported.
const LIST_ERRORS_MAX: usize = 10;

/// The lists in use, and outcomes of changes.
pub(super) struct WatchedIpLists {
    lists: IpLists,
    /// The states of the files that could not be used. Control tries them again when they change.
    refused: BTreeMap<PathBuf, Option<FileStamp>>,
    loaded: u64,
    failed: u64,
    /// When the last change was refused, and why.
    last_error: Option<(u64, String)>,
}

impl WatchedIpLists {
    pub(super) fn new(lists: IpLists) -> Self {
        Self {
            lists,
            refused: BTreeMap::new(),
            loaded: 0,
            failed: 0,
            last_error: None,
        }
    }

    /// Takes over what a reload has read.
    pub(super) fn replace(&mut self, lists: IpLists) {
        self.lists = lists;
        self.refused.clear();
        self.last_error = None;
    }

    /// The lists whose files are neither in use nor refused in their state.
    fn changed(&self, stamps: Vec<(PathBuf, Option<FileStamp>)>) -> Vec<PathBuf> {
        let is_new = |(path, stamp): &(PathBuf, Option<FileStamp>)| {
            let known = self.lists.0.get(path).map(|list| list.stamp);
            known.is_some_and(|known| known != *stamp) && self.refused.get(path) != Some(stamp)
        };
        let changed = stamps.into_iter().filter(is_new);
        changed.map(|(path, _)| path).collect()
    }

    pub(super) fn metrics(&self, page: &mut MetricsPage) {
        let help = "Networks in a list that `ip` rules name.";
        page.family("weir_ip_list_networks", MetricKind::Gauge, help);
        for (path, list) in &self.lists.0 {
            let file = path.display().to_string();
            page.sample(&[("file", &file)], list.networks.len() as u64);
        }
        let help = "Changes of lists of networks that took effect.";
        page.family("weir_ip_lists_loaded_total", MetricKind::Counter, help);
        page.sample(&[], self.loaded);
        let help = "Changes of lists of networks that were refused; the former ones stay.";
        page.family("weir_ip_lists_failed_total", MetricKind::Counter, help);
        page.sample(&[], self.failed);
    }

    pub(super) fn health(&self, out: &mut String) {
        if let Some((ms, error)) = &self.last_error {
            let mut when = String::new();
            text::time(&mut when, *ms);
            let _ = writeln!(
                out,
                "a changed list of networks was refused at {when}; the former one is in use:\n{}",
                error.trim_end()
            );
        }
    }
}

/// A list that was read again.
type ReadAgain = (PathBuf, Option<FileStamp>, Result<Vec<Cidr>, String>);

fn read_again(path: PathBuf) -> ReadAgain {
    let stamp = FileStamp::now(&path);
    let named = NamedFile {
        path: path.clone(),
        excerpt: None,
    };
    let networks = read_list(&path).map_err(|errors| {
        let errors: Vec<_> = errors.into_iter().map(|each| each.at(&named, "")).collect();
        weir_config::to_text(&errors)
    });
    (path, stamp, networks)
}

impl Control {
    /// Watches the lists until the process drains.
    pub(super) async fn watch_ip_lists(self: Rc<Self>) {
        loop {
            sleep(limits::CERTIFICATES_WATCH).await;
            if self.draining.get() {
                return;
            }
            let (paths, epoch) = {
                let state = self.state.borrow();
                let paths = state.ip_lists.lists.paths().map(Path::to_owned);
                (paths.collect::<Vec<_>>(), state.plan.epoch)
            };
            if paths.is_empty() {
                continue;
            }
            // On a thread of its own: a file system that does not answer delays this watch and nothing else.
            let look = move || {
                let stamp = |path: PathBuf| (FileStamp::now(&path), path);
                let stamps = paths.into_iter().map(stamp);
                stamps.map(|(stamp, path)| (path, stamp)).collect()
            };
            let Ok(stamps) = tokio::task::spawn_blocking(look).await else {
                continue;
            };
            let changed = self.state.borrow().ip_lists.changed(stamps);
            if changed.is_empty() {
                continue;
            }
            let read = move || changed.into_iter().map(read_again).collect::<Vec<_>>();
            match tokio::task::spawn_blocking(read).await {
                // Otherwise a reload has read the lists meanwhile.
                Ok(read) if self.state.borrow().plan.epoch == epoch => self.take_ip_lists(read),
                Ok(_) => {}
                Err(_) => {
                    process::error("reading a list has panicked, which is a bug of Weir's");
                }
            }
        }
    }

    /// Uses the lists that could be read.
    fn take_ip_lists(&self, read: Vec<ReadAgain>) {
        let mut state = self.state.borrow_mut();
        let plan = state.plan.clone();
        let watched = &mut state.ip_lists;
        for (path, stamp, outcome) in read {
            match outcome {
                Ok(networks) => {
                    let networks_count = count(networks.len(), "network");
                    process::info(format_args!(
                        "the list {} has changed: {networks_count} from now on",
                        path.display()
                    ));
                    watched.refused.remove(&path);
                    watched.loaded += 1;
                    watched.lists.0.insert(path, IpList { stamp, networks });
                }
                Err(error) => {
                    process::error(format_args!(
                        "a changed list of networks cannot be used; the former one stays:\n{}",
                        error.trim_end()
                    ));
                    watched.refused.insert(path, stamp);
                    watched.failed += 1;
                    watched.last_error = Some((process::now_ms(), error));
                }
            }
        }
        if watched.refused.is_empty() {
            watched.last_error = None;
        }
        watched.lists.give_to(&plan);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_network_a_line() {
        let text = "# Offices\r\n10.0.0.0/8\r\n\n  192.0.2.7   # Ann\n2001:db8::/32#x\n\t#\n::1";
        let networks = parse_list("l.txt", text).unwrap();
        let networks: Vec<_> = networks.iter().map(Cidr::to_string).collect();
        assert_eq!(
            networks,
            ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::1/128"]
        );
        assert_eq!(parse_list("l.txt", "").unwrap(), []);
    }

    #[test]
    fn wrong_lines_are_reported_with_their_line() {
        let text = "10.0.0.0/8\n  10.0.0.1/8 # x\nexample.com\n192.0.2.0/24 192.0.3.0/24\n";
        let errors = parse_list("l.txt", text).unwrap_err();
        let shown = weir_config::to_text(&errors);
        assert!(
            shown.contains("l.txt:2:3") && shown.contains("write \"10.0.0.0/8\" or \"10.0.0.1\""),
            "{shown}"
        );
        assert!(shown.contains("l.txt:3:1"), "{shown}");
        assert!(shown.contains("l.txt:4:1"), "{shown}");
        assert_eq!(errors.len(), 3);
    }

    #[test]
    fn a_list_with_many_wrong_lines_is_reported_in_part() {
        let errors = parse_list("l.txt", &"x\n".repeat(100_000)).unwrap_err();
        assert_eq!(errors.len(), LIST_ERRORS_MAX);
    }
}
