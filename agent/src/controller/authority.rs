//! Root and intermediate. In a Secret, which the leader makes, and of which it replaces the parts in time; or
//! in a directory, that others look after. All replicas read them and sign. The roots are told to agents in a
//! ConfigMap.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;
use undermesh_control::{ApiServer, Keeping, KeptSecret};
use undermesh_identity::{CaMaterial, Rotation};
use undermesh_telemetry::{Audit, AuditEvent};

use super::{leader::Leadership, settings::Settings};

/// Put on the Secret by somebody who wants another root.
const ROTATE_ROOT: &str = "undermesh.io/rotate-root";
/// The entry of the ConfigMap, as Istio's has it.
const ROOTS: &str = "root-cert.pem";
/// How often the Secret or the directory is looked at.
const POLL: Duration = Duration::from_secs(5);

/// Everything that signs here.
pub(super) type Authority = watch::Receiver<Option<Arc<CaMaterial>>>;

pub(super) struct AuthorityKeeper {
    api: ApiServer,
    source: Source,
    namespace: String,
    config_map: String,
    rotation: Rotation,
    leadership: Leadership,
    audit: Audit,
    current: watch::Sender<Option<Arc<CaMaterial>>>,
    /// The bundle that was told last.
    told: Option<String>,
    complaint: Option<String>,
}

enum Source {
    Secret(String),
    Directory(PathBuf),
}

impl AuthorityKeeper {
    pub(super) fn new(
        api: ApiServer,
        settings: &Settings,
        leadership: Leadership,
        audit: Audit,
    ) -> Result<(Self, Authority)> {
        let source = match &settings.ca_dir {
            Some(path) => Source::Directory(path.clone()),
            None => Source::Secret(settings.ca_secret.clone()),
        };
        let keeper = Self {
            api,
            source,
            namespace: settings.namespace.clone(),
            config_map: settings.ca_config_map.clone(),
            rotation: settings.rotation.clone(),
            leadership,
            audit,
            current: watch::Sender::new(None),
            told: None,
            complaint: None,
        };
        let authority = keeper.current.subscribe();
        Ok((keeper, authority))
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut leadership = self.leadership.clone();
        loop {
            let result = tokio::select! {
                result = self.round() => result,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            self.complain(result.err().map(|error| format!("{error:#}")));
            let soon = if self.current.borrow().is_some() { POLL } else { POLL / 10 };
            tokio::select! {
                () = tokio::time::sleep(soon) => {}
                () = leadership.changed() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn round(&mut self) -> Result<()> {
        match &self.source {
            Source::Directory(path) => {
                let read = CaMaterial::read(path);
                let read = read.with_context(|| format!("caDir {}", path.display()))?;
                self.take(read);
            }
            Source::Secret(name) => {
                let name = name.clone();
                self.follow_secret(&name).await?;
            }
        }
        self.tell().await
    }

    /// Reads the Secret, and does what is due, where this replica leads.
    async fn follow_secret(&mut self, name: &str) -> Result<()> {
        let at = || format!("Secret {}/{name}", self.namespace);
        let found = self.api.secret(&self.namespace, name).await.with_context(at)?;
        let Some(found) = found else { return self.create(name).await };
        let read = CaMaterial::from_entries(&found.entries).with_context(at)?;
        ensure!(
            read.trust_domain().is_none_or(|it| it == self.rotation.options.trust_domain),
            "{} is of another trust domain than trustDomain {}",
            at(),
            self.rotation.options.trust_domain
        );
        let wants_root = found.annotations.get(ROTATE_ROOT).is_some_and(|it| it == "true");
        self.take(read);
        if !self.leadership.is_held() {
            return Ok(());
        }
        let Some(current) = self.current.borrow().clone() else { return Ok(()) };
        let now = std::time::SystemTime::now().into();
        let mut annotations = found.annotations.clone();
        let next = if wants_root {
            annotations.remove(ROTATE_ROOT);
            match current.stage(&self.rotation, now) {
                Ok(next) => Some(next),
                Err(error) => {
                    tracing::error!(%error, "the root is not replaced as {ROTATE_ROOT} asks");
                    None
                }
            }
        } else {
            let Some(next) = current.advance(&self.rotation, now)? else { return Ok(()) };
            Some(next)
        };
        let entries = next.as_ref().map_or(found.entries.clone(), CaMaterial::entries);
        let secret = found.with(entries, annotations);
        if self.keep(name, &secret).await?
            && let Some(next) = next
        {
            self.say(change(&current, &next), &next);
            self.take(next);
        }
        Ok(())
    }

    /// Whoever is first makes the one that all use.
    async fn create(&mut self, name: &str) -> Result<()> {
        if self.current.borrow().is_some() {
            bail!(
                "Secret {}/{name} is gone; certificates go on to be signed with what it held",
                self.namespace
            );
        }
        if !self.leadership.is_held() {
            return Ok(());
        }
        let made = CaMaterial::make(&self.rotation.options)?;
        if self.keep(name, &KeptSecret::new(made.entries())).await? {
            tracing::info!("made a root and an intermediate in Secret {}/{name}", self.namespace);
            self.say("created", &made);
            self.take(made);
        }
        Ok(())
    }

    async fn keep(&self, name: &str, secret: &KeptSecret) -> Result<bool> {
        let write = self.api.keep_secret(&self.namespace, name, secret);
        let Some(kept) = self.leadership.write(write).await else { return Ok(false) };
        let kept = kept.with_context(|| format!("Secret {}/{name}", self.namespace))?;
        Ok(kept == Keeping::Done)
    }

    fn take(&self, material: CaMaterial) {
        self.current.send_if_modified(|current| {
            let is_new = current.as_deref() != Some(&material);
            if is_new {
                *current = Some(Arc::new(material));
            }
            is_new
        });
    }

    /// Tells the roots to everybody who mounts the ConfigMap.
    async fn tell(&mut self) -> Result<()> {
        let Some(current) = self.current.borrow().clone() else { return Ok(()) };
        if !self.leadership.is_held() {
            self.told = None;
            return Ok(());
        }
        let bundle = current.bundle().to_owned();
        let entries = BTreeMap::from([(ROOTS.to_owned(), bundle.clone())]);
        let write = self.api.tell(&self.namespace, &self.config_map, &entries);
        let told = self.leadership.write(write).await;
        let at = || format!("ConfigMap {}/{}", self.namespace, self.config_map);
        if let Some(told) = told {
            // Whoever was faster has told the same.
            match told {
                Err(error) if error.is_conflict() => {}
                told => {
                    if told.with_context(at)? {
                        tracing::info!(roots = current.root_count(), "{} has the roots", at());
                    }
                    self.told = Some(bundle);
                }
            }
        }
        Ok(())
    }

    fn complain(&mut self, complaint: Option<String>) {
        if complaint != self.complaint {
            match &complaint {
                Some(error) => tracing::error!(error, "the authority cannot be looked after"),
                None => tracing::info!("the authority can be looked after again"),
            }
            self.complaint = complaint;
        }
    }

    fn say(&self, change: &'static str, material: &CaMaterial) {
        let Ok(issuer) = material.describe_issuer() else { return };
        tracing::info!(change, issuer = issuer.subject, "the authority has changed");
        self.audit.record(&AuditEvent::AuthorityChanged {
            change,
            issuer: issuer.subject,
            serial: issuer.serial,
            roots: material.root_count(),
        });
    }
}

/// What a step has changed, as a word.
fn change(before: &CaMaterial, after: &CaMaterial) -> &'static str {
    match (before.root_count(), after.root_count()) {
        (before, after) if before < after => "root_staged",
        (before, after) if before > after => "root_pruned",
        _ if after.is_after_promotion() && !before.is_after_promotion() => "root_replaced",
        _ => "intermediate_replaced",
    }
}
