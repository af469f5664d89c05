//! A client for any API server that a kubeconfig leads to: the one in this process, or that of a cluster.
//! One request, one connection.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const MANAGER: &str = "undermesh-tests";

/// A way to an API server.
pub struct KubeClient {
    host: String,
    port: u16,
    token: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

impl KubeClient {
    /// Reads a kubeconfig: with a token or a client certificate, as files or as data.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let config: Value = serde_yaml_ng::from_str(&fs::read_to_string(kubeconfig)?)?;
        let context = named(&config["contexts"], &config["current-context"], "context")?;
        let cluster = named(&config["clusters"], &context["cluster"], "cluster")?;
        let user = named(&config["users"], &context["user"], "user")?;
        let server = cluster["server"].as_str().context("the kubeconfig names no server")?;
        let (scheme, rest) = server.split_once("://").context("the server is no URL")?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse()?),
            _ => (authority, if scheme == "https" { 443 } else { 80 }),
        };
        let dir = kubeconfig.parent().unwrap_or(Path::new("."));
        let tls = (scheme == "https").then(|| tls(dir, cluster, user)).transpose()?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            token: user["token"].as_str().map(str::to_owned),
            tls,
        })
    }

    /// Applies an object as it is given; what others have set stays.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let path = format!("{}?fieldManager={MANAGER}&force=true", self.path_of(object)?);
        self.must("PATCH", &path, "application/apply-patch+yaml", object)
    }

    /// Deletes an object; one that is not there is deleted already.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let path = self.path_of(object)?;
        match self.send("DELETE", &path, "application/json", &json!({}))? {
            (200 | 202 | 404, _) => Ok(()),
            (code, answer) => bail!("DELETE {path} is answered {code}: {answer}"),
        }
    }

    /// Reads a path.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.must("GET", path, "application/json", &Value::Null)
    }

    /// Sends anything; the code and the object that is answered.
    ///
    /// # Errors
    /// Where there is no answer.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let (host, token, length) = (&self.host, token.unwrap_or_default(), body.len());
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n{token}\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let answer = self.exchange(request.as_bytes())?;
        let text = String::from_utf8(answer)?;
        let (head, body) =
            text.split_once("\r\n\r\n").context("the answer has no end of its head")?;
        let code = head.split(' ').nth(1).context("the answer has no code")?.parse()?;
        Ok((code, serde_json::from_str(body).unwrap_or_else(|_| json!(body))))
    }

    fn must(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Value> {
        let (code, answer) = self.send(method, path, kind, body)?;
        ensure!((200..300).contains(&code), "{method} {path} is answered {code}: {answer}");
        Ok(answer)
    }

    /// Where an object is, as the server's discovery has it.
    fn path_of(&self, object: &Value) -> Result<String> {
        let api_version = object["apiVersion"].as_str().context("an object has no apiVersion")?;
        let base = if api_version.contains('/') { "apis" } else { "api" };
        let list = self.get(&format!("/{base}/{api_version}"))?;
        let resources = list["resources"].as_array().into_iter().flatten();
        let is_it = |resource: &&Value| {
            resource["kind"] == object["kind"]
                && resource["name"].as_str().is_some_and(|name| !name.contains('/'))
        };
        let resource = resources.into_iter().find(is_it);
        let resource = resource.with_context(|| format!("there is no kind {}", object["kind"]))?;
        let name = object["metadata"]["name"].as_str().context("an object has no name")?;
        let plural = resource["name"].as_str().unwrap_or_default();
        let namespace = match resource["namespaced"].as_bool() {
            Some(true) => {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
                format!("/namespaces/{namespace}")
            }
            _ => String::new(),
        };
        Ok(format!("/{base}/{api_version}{namespace}/{plural}/{name}"))
    }

    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        let address = addresses.next().context("the server has no address")?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::new();
        match &self.tls {
            None => {
                stream.write_all(request)?;
                stream.read_to_end(&mut answer)?;
            }
            Some(config) => {
                let name = ServerName::try_from(self.host.clone())?;
                let session = ClientConnection::new(Arc::clone(config), name)?;
                let mut stream = StreamOwned::new(session, stream);
                stream.write_all(request)?;
                // Servers that leave without a word have said all that they had to say.
                if let Err(error) = stream.read_to_end(&mut answer)
                    && error.kind() != std::io::ErrorKind::UnexpectedEof
                {
                    return Err(error.into());
                }
            }
        }
        Ok(answer)
    }
}

fn named<'a>(list: &'a Value, name: &Value, field: &str) -> Result<&'a Value> {
    let entries = list.as_array().into_iter().flatten();
    let found = entries.into_iter().find(|entry| entry["name"] == *name);
    Ok(&found.with_context(|| format!("the kubeconfig has no {field} {name}"))?[field])
}

fn tls(dir: &Path, cluster: &Value, user: &Value) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let ca = material(dir, cluster, "certificate-authority")?.context("there are no roots")?;
    for root in CertificateDer::pem_slice_iter(&ca) {
        roots.add(root?)?;
    }
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let chain = material(dir, user, "client-certificate")?;
    let config = match (chain, material(dir, user, "client-key")?) {
        (Some(chain), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// A field that is a file, or the same with `-data`, which is its content in base64.
fn material(dir: &Path, entry: &Value, field: &str) -> Result<Option<Vec<u8>>> {
    if let Some(data) = entry[format!("{field}-data")].as_str() {
        return Ok(Some(base64(data)?));
    }
    let file = entry[field].as_str().map(|file| PathBuf::from(dir).join(file));
    Ok(file.map(fs::read).transpose()?)
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Result<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("this is no base64"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_its_end() {
        for (text, expected) in [("", ""), ("Zg==", "f"), ("Zm8", "fo"), ("Zm9v\nYmFy", "foobar")] {
            assert_eq!(base64(text).unwrap(), expected.as_bytes());
        }
        assert!(base64("!").is_err());
    }
}
