//! Certificates and keys while the process runs. Control reads changed files again, checks them and sends them to the
//! cores. A file that cannot be used changes nothing.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::sleep;

use weir_config::{ClientCert, ListenTls, TlsVersion, UpstreamTls, Verify};

use super::admin_pages::{list, string};
use super::{Control, Source, count, limits};
use crate::obs::{MetricKind, MetricsPage, process, text};
use crate::serving::Command;
use crate::tls::{self, FileStamp};

/// The certificates and keys in use, and outcomes of changes.
pub(super) struct Certificates {
    tls: Arc<tls::LoadedTls>,
    /// The place of each file's certificate in `tls`.
    by_path: HashMap<PathBuf, usize>,
    /// Certificates that the log has warned about, by file, and whether they had expired by then.
    warned: HashSet<(PathBuf, bool)>,
    /// The state of the files that could not be used. Control tries them again when they change.
    refused: Option<Stamps>,
    loaded: u64,
    failed: u64,
    /// When the last change was refused, and why.
    last_error: Option<(u64, String)>,
}

type Stamps = Vec<(PathBuf, Option<FileStamp>)>;

impl Certificates {
    pub(super) fn new(tls: tls::LoadedTls) -> Self {
        Self {
            by_path: by_path(&tls),
            warned: expiring(&tls).map(|(one, _)| known(one)).collect(),
            tls: Arc::new(tls),
            refused: None,
            loaded: 0,
            failed: 0,
            last_error: None,
        }
    }

    /// The TLS settings of upstreams, in file order.
    pub(super) fn clients(&self) -> Vec<Option<Arc<tls::TlsClient>>> {
        self.tls.clients.clone()
    }

    /// Takes over what a reload has read.
    pub(super) fn replace(&mut self, tls: tls::LoadedTls) {
        self.take(Arc::new(tls));
        (self.refused, self.last_error) = (None, None);
    }

    /// Uses these from now on. Reading them has logged their warnings already.
    fn take(&mut self, tls: Arc<tls::LoadedTls>) {
        self.by_path = by_path(&tls);
        self.warned = expiring(&tls).map(|(one, _)| known(one)).collect();
        self.tls = tls;
    }

    /// Warns once of each certificate that it expires soon, and once that it has expired.
    fn warn_expiring(&mut self) {
        for (one, warning) in expiring(&self.tls) {
            if self.warned.insert(known(one)) {
                let path = one.path.display();
                process::warn(format_args!("the certificate {path} {warning}"));
            }
        }
    }

    /// Whether the files are neither in use nor refused in this state.
    fn is_new(&self, stamps: &Stamps) -> bool {
        *stamps != self.tls.files && self.refused.as_ref() != Some(stamps)
    }

    pub(super) fn metrics(&self, page: &mut MetricsPage) {
        let help = "When a certificate that Weir presents expires, since the Unix epoch.";
        page.family(
            "weir_certificate_not_after_seconds",
            MetricKind::Gauge,
            help,
        );
        for certificate in &self.tls.certificates {
            let file = certificate.path.display().to_string();
            page.sample(&[("file", &file)], certificate.identity.not_after);
        }
        let help = "Changes of files of certificates and keys that took effect.";
        page.family("weir_certificates_loaded_total", MetricKind::Counter, help);
        page.sample(&[], self.loaded);
        let help =
            "Changes of files of certificates and keys that were refused; the former ones stay.";
        page.family("weir_certificates_failed_total", MetricKind::Counter, help);
        page.sample(&[], self.failed);
    }

    /// A listener's TLS settings as JSON.
    pub(super) fn listener(&self, out: &mut String, tls: Option<&ListenTls>) {
        let Some(tls) = tls else {
            return out.push_str("null");
        };
        let version = match tls.min_version {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
        };
        let asked = match (&tls.client_ca, tls.client_cert) {
            (None, _) => "none",
            (Some(_), ClientCert::Optional) => "optional",
            (Some(_), ClientCert::Required) => "required",
        };
        let _ = write!(
            out,
            "{{\"min_version\":\"{version}\",\"client_cert\":\"{asked}\""
        );
        if let Some(crl) = &tls.client_crl {
            out.push(',');
            string(out, "client_crl", &crl.path.to_string_lossy());
        }
        list(out, "certificates", &tls.certs, |out, files| {
            self.write_certificate(out, &files.cert.path);
        });
        out.push('}');
    }

    /// An upstream's TLS settings as JSON.
    pub(super) fn upstream(&self, out: &mut String, tls: Option<&UpstreamTls>) {
        let Some(tls) = tls else {
            return out.push_str("null");
        };
        out.push('{');
        let authorities = match (tls.verify, &tls.ca) {
            (Verify::Off, _) => "off".into(),
            (Verify::On, Some(ca)) => ca.path.to_string_lossy(),
            (Verify::On, None) => "system".into(),
        };
        string(out, "verify", &authorities);
        if let Some(name) = &tls.server_name {
            out.push(',');
            string(out, "server_name", name);
        }
        list(
            out,
            "certificates",
            tls.cert.as_slice(),
            |out, (cert, _)| {
                self.write_certificate(out, &cert.path);
            },
        );
        out.push('}');
    }

    /// A certificate that Weir presents, as members of a JSON object.
    fn write_certificate(&self, out: &mut String, path: &Path) {
        string(out, "file", &path.to_string_lossy());
        let known = self.by_path.get(path);
        let Some(known) = known.and_then(|at| self.tls.certificates.get(*at)) else {
            return;
        };
        out.push(',');
        string(out, "subject", &known.identity.subject);
        out.push_str(",\"names\":[");
        for (at, name) in known.identity.names.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { "," });
            text::json(out, name.as_bytes());
        }
        let mut when = String::new();
        text::time(&mut when, known.identity.not_after.saturating_mul(1000));
        let _ = write!(out, "],\"not_after\":\"{when}\"");
    }

    pub(super) fn health(&self, out: &mut String) {
        let all = &self.tls.certificates;
        if let Some(first) = all.iter().min_by_key(|each| each.identity.not_after) {
            let (path, left) = (first.path.display(), first.identity.seconds_left());
            let when = match left {
                ..0 => format!("{} ago", tls::span(-left)),
                _ => format!("in {}", tls::span(left)),
            };
            let all = count(all.len(), "certificate");
            let _ = writeln!(out, "{all}; the first to expire is {path}, {when}");
        }
        if let Some((ms, error)) = &self.last_error {
            let mut when = String::new();
            text::time(&mut when, *ms);
            let _ = writeln!(
                out,
                "a changed certificate or key was refused at {when}; the former ones are in use:\n{}",
                error.trim_end()
            );
        }
    }
}

/// Certificates that have expired or soon will, with a warning each.
fn expiring(tls: &tls::LoadedTls) -> impl Iterator<Item = (&tls::OwnCertificate, String)> {
    let all = tls.certificates.iter();
    all.filter_map(|one| Some((one, one.identity.time_warning()?)))
}

fn known(one: &tls::OwnCertificate) -> (PathBuf, bool) {
    (one.path.clone(), one.identity.seconds_left() < 0)
}

fn by_path(tls: &tls::LoadedTls) -> HashMap<PathBuf, usize> {
    let all = tls.certificates.iter().enumerate();
    all.map(|(at, one)| (one.path.clone(), at)).collect()
}

impl Control {
    /// Watches the files until the process drains.
    pub(super) async fn watch_certificates(self: Rc<Self>) {
        loop {
            sleep(limits::CERTIFICATES_WATCH).await;
            if self.draining.get() {
                return;
            }
            let tls = self.state.borrow().certificates.tls.clone();
            // On a thread of its own: a file system that does not answer delays this watch and nothing else.
            let look = move || {
                let stamp = |path: &PathBuf| (path.clone(), FileStamp::now(path));
                tls.files.iter().map(|(path, _)| stamp(path)).collect()
            };
            let Ok(stamps) = tokio::task::spawn_blocking(look).await else {
                continue;
            };
            let is_new = {
                let certificates = &mut self.state.borrow_mut().certificates;
                certificates.warn_expiring();
                certificates.is_new(&stamps)
            };
            if is_new {
                self.refresh_certificates(stamps).await;
            }
        }
    }

    async fn refresh_certificates(&self, stamps: Stamps) {
        let (config, epoch) = {
            let state = self.state.borrow();
            (state.config.clone(), state.plan.epoch)
        };
        let tickets = self.tickets.clone();
        let name = match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Given(_) => String::new(),
        };
        let load = move || tls::load(&config, Some(&tickets), &name);
        let Ok(outcome) = tokio::task::spawn_blocking(load).await else {
            return process::error("reading certificates has panicked, which is a bug of Weir's");
        };
        if self.state.borrow().plan.epoch != epoch {
            // A reload has read the files meanwhile.
            return;
        }
        match outcome {
            Ok((loaded, warnings)) => {
                warnings
                    .iter()
                    .for_each(|each| process::warn(each.to_log()));
                let tls = Arc::new(loaded);
                {
                    let state = &mut *self.state.borrow_mut();
                    state.health.renew_tls(&state.plan, &tls.clients);
                    let certificates = &mut state.certificates;
                    certificates.take(tls.clone());
                    certificates.loaded += 1;
                    (certificates.refused, certificates.last_error) = (None, None);
                }
                let command = |receipt| Command::Tls {
                    tls: tls.clone(),
                    epoch,
                    receipt,
                };
                self.change(command).await;
                let files = count(tls.certificates.len(), "certificate");
                process::info(format_args!(
                    "certificates have changed: {files} in use from now on"
                ));
            }
            Err(errors) => {
                let text = weir_config::to_text(&errors);
                process::error(format_args!(
                    "a changed certificate or key cannot be used; the former ones stay:\n{}",
                    text.trim_end()
                ));
                let certificates = &mut self.state.borrow_mut().certificates;
                certificates.failed += 1;
                certificates.refused = Some(stamps);
                certificates.last_error = Some((process::now_ms(), text));
            }
        }
    }
}
