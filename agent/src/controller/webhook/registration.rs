//! Tells the API server whom to trust as the webhook: the roots, in the ValidatingWebhookConfiguration that is
//! installed with the controller. The leader does, and again whenever somebody has changed it.

use std::time::Duration;

use tokio::sync::watch;
use undermesh_control::ApiServer;

use crate::controller::{authority::Authority, leader::Leadership};

/// How often it is looked at: an upgrade of the installation may have taken the roots out.
const POLL: Duration = Duration::from_secs(10);

pub(in crate::controller) struct Registration {
    pub(in crate::controller) api: ApiServer,
    pub(in crate::controller) name: String,
    pub(in crate::controller) authority: Authority,
    pub(in crate::controller) leadership: Leadership,
}

impl Registration {
    /// Runs until `stop`.
    pub(in crate::controller) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut complaint = None;
        let mut leadership = self.leadership.clone();
        loop {
            let said = self.round().await.err();
            if said != complaint {
                match &said {
                    Some(error) => {
                        tracing::warn!(
                            error,
                            "the webhook's registration has no roots; it is not asked"
                        );
                    }
                    None => tracing::info!("the webhook's registration is as it should be"),
                }
                complaint = said;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = leadership.changed() => {}
                changed = self.authority.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn round(&mut self) -> Result<(), String> {
        let Some(authority) = self.authority.borrow_and_update().clone() else { return Ok(()) };
        if !self.leadership.is_held() {
            return Ok(());
        }
        let write = self.api.trust_webhook(&self.name, authority.bundle());
        match self.leadership.write(write).await {
            Some(Ok(true)) => {
                tracing::info!(name = self.name, "the API server has the webhook's roots");
            }
            // Somebody else has written in between, or there is none: nobody has asked for the webhook.
            Some(Err(error)) if error.is_conflict() => {}
            Some(Err(error)) => return Err(format!("{}: {error}", self.name)),
            Some(Ok(false)) | None => {}
        }
        Ok(())
    }
}
