//! Who the API server asks before it takes an object (`admissionregistration.k8s.io/v1`).

use k8s_openapi::{ByteString, api::admissionregistration::v1::ValidatingWebhookConfiguration};
use serde_json::Value;

use super::{ApiError, ApiServer, is_name};

/// Services of one namespace that are looked at.
const MAX_SERVICES: u32 = 1000;

impl ApiServer {
    /// Makes every webhook of a ValidatingWebhookConfiguration be verified with these roots (PEM). Says
    /// whether anything had to be written. One that is not there is nobody's concern.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn trust_webhook(&self, name: &str, roots: &str) -> Result<bool, ApiError> {
        let path =
            format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}");
        let found: Option<ValidatingWebhookConfiguration> = self.find(&path).await?;
        let Some(mut configuration) = found else { return Ok(false) };
        let roots = ByteString(roots.as_bytes().to_vec());
        let mut changed = false;
        for webhook in configuration.webhooks.iter_mut().flatten() {
            let bundle = &mut webhook.client_config.ca_bundle;
            if bundle.as_ref() != Some(&roots) {
                *bundle = Some(roots.clone());
                changed = true;
            }
        }
        if changed {
            let _: serde::de::IgnoredAny = self.update(&path, &configuration).await?;
        }
        Ok(changed)
    }

    /// The Services of a namespace, as they are.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn services(&self, namespace: &str) -> Result<Vec<Value>, ApiError> {
        if !is_name(namespace) {
            return Ok(Vec::new());
        }
        let path = format!("/api/v1/namespaces/{namespace}/services?limit={MAX_SERVICES}");
        let mut list: Value = self.get(&path).await?;
        let Some(items) = list["items"].as_array_mut() else { return Ok(Vec::new()) };
        // Those of a list do not say what they are.
        for item in items.iter_mut() {
            item["apiVersion"] = "v1".into();
            item["kind"] = "Service".into();
        }
        Ok(std::mem::take(items))
    }
}
