//! TLS for connections: a given certificate and key, or a self-signed pair made at start.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use crate::config::TlsConfig;

/// What accepts TLS connections; `None` when TLS is switched off. The error is one line for the operator.
pub fn acceptor(config: &TlsConfig) -> Result<Option<TlsAcceptor>, String> {
    if config.off {
        return Ok(None);
    }
    let (chain, key) = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => (read_chain(cert)?, read_key(key)?),
        (None, None) => self_signed()?,
        _ => return Err("tls: cert and key go together: give both or neither".to_owned()),
    };
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| format!("tls: {e}"))?;
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = File::open(path).map_err(|e| format!("tls: cannot read {}: {e}", path.display()))?;
    let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut BufReader::new(file)).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!("tls: {} holds no certificate in PEM form", path.display())),
        Err(e) => Err(format!("tls: {}: {e}", path.display())),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let file = File::open(path).map_err(|e| format!("tls: cannot read {}: {e}", path.display()))?;
    rustls_pemfile::private_key(&mut BufReader::new(file))
        .map_err(|e| format!("tls: {}: {e}", path.display()))?
        .ok_or_else(|| format!("tls: {} holds no private key in PEM form", path.display()))
}

fn self_signed() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names)
        .map_err(|e| format!("tls: self-signed certificate: {e}"))?;
    let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
    Ok((vec![pair.cert.der().clone()], key.into()))
}
