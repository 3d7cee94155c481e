//! The flags that say where an etcd is, and how it is reached.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::Stop;
use crate::{
    file,
    serve::etcd::{EtcdOptions, EtcdTls, exposed},
};

/// Where the objects are, if they are not in a file.
#[derive(Args)]
pub(super) struct EtcdArguments {
    /// Keep what is wanted in this etcd: the URLs of its members
    #[arg(
        long = "etcd",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "State in etcd"
    )]
    members: Vec<String>,

    /// The authorities that certificates of etcd must come from [default: those of the system]
    #[arg(
        long = "etcd-ca",
        value_name = "FILE",
        requires = "members",
        help_heading = "State in etcd"
    )]
    authorities: Option<PathBuf>,

    /// The certificate to show to etcd
    #[arg(
        long = "etcd-cert",
        value_name = "FILE",
        requires = "members",
        requires = "key",
        help_heading = "State in etcd"
    )]
    certificate: Option<PathBuf>,

    /// The key of this certificate
    #[arg(
        long = "etcd-key",
        value_name = "FILE",
        requires = "certificate",
        help_heading = "State in etcd"
    )]
    key: Option<PathBuf>,

    /// The user of etcd to be
    #[arg(
        long = "etcd-user",
        value_name = "NAME",
        requires = "members",
        requires = "password",
        help_heading = "State in etcd"
    )]
    user: Option<String>,

    /// The file with the password of this user
    #[arg(
        long = "etcd-password-file",
        value_name = "FILE",
        requires = "user",
        help_heading = "State in etcd"
    )]
    password: Option<PathBuf>,

    /// Allow `http://` to another machine, where everything can be read and changed on the way
    #[arg(
        long = "etcd-insecure",
        requires = "members",
        help_heading = "State in etcd"
    )]
    insecure: bool,
}

impl EtcdArguments {
    /// How to reach the etcd, if one is named, below this prefix.
    pub(super) fn options(&self, prefix: &str) -> Result<Option<EtcdOptions>, Stop> {
        if self.members.is_empty() {
            return Ok(None);
        }
        let options = self.read(prefix).map_err(Stop::usage)?;
        refuse_exposed(&self.members, self.insecure).map_err(Stop::usage)?;
        Ok(Some(options))
    }

    fn read(&self, prefix: &str) -> anyhow::Result<EtcdOptions> {
        let bytes = |path: &Option<PathBuf>| path.as_deref().map(text).transpose();
        let (certificate, key) = (bytes(&self.certificate)?, bytes(&self.key)?);
        let password = bytes(&self.password)?;
        let password = password.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
        Ok(EtcdOptions {
            members: self.members.clone(),
            prefix: prefix.to_owned(),
            tls: EtcdTls {
                authorities: bytes(&self.authorities)?.map(String::into_bytes),
                identity: certificate
                    .map(String::into_bytes)
                    .zip(key.map(String::into_bytes)),
            },
            user: self.user.clone().zip(password),
        })
    }
}

/// Refuses members to which everything would be sent as plain text, unless that is allowed.
fn refuse_exposed(members: &[String], is_allowed: bool) -> anyhow::Result<()> {
    let exposed = exposed(members).next();
    if let Some(url) = exposed.filter(|_| !is_allowed) {
        bail!(
            "`{url}` would send everything to another machine as plain text, where it can be read \
             and changed on the way: use `https://`, or allow it with `--etcd-insecure`"
        );
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<String> {
    file::text(path).with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_elsewhere_wants_tls_or_a_word() {
        let members = |url: &str, insecure| refuse_exposed(&[url.to_owned()], insecure);
        for near in [
            "http://127.0.0.1:2379",
            "http://[::1]:2379",
            "http://localhost:2379/",
            "https://10.0.0.1:2379",
        ] {
            members(near, false).expect(near);
        }
        for far in [
            "http://10.0.0.1:2379",
            "http://etcd:2379",
            "http://127.0.0.1.example:2379",
            "HTTP://10.0.0.1:2379",
            "http://127.0.0.1@10.0.0.1:2379",
        ] {
            let error = members(far, false).expect_err(far).to_string();
            assert!(error.contains("--etcd-insecure"), "{error}");
            members(far, true).expect(far);
        }
    }
}
