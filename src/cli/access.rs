//! Who may ask a coordinator: its arguments, and the tokens of its first start.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use tempfile::TempDir;

use super::{
    Failure, JoinTokenArgs,
    token::{check_length, token_of},
    values::{any_u32, at_least_one},
    whole_file::WholeFile,
};
use crate::{
    coordinator::{AccessConfig, AllowedWorker, Coordinator, QuarantineLimits},
    protocol::{NewToken, Scope, Token, TokenKind},
    transport::{Caller, Operator, OperatorError, http::Fingerprint},
};

/// The name of the admin token's file in the state folder.
const ADMIN_FILE: &str = "admin.token";

/// Who may do what.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Ask no tokens of this machine: each of its users is then an operator and may add workers. Only with a loopback address
    #[arg(long)]
    pub open: bool,
    /// A join token of your own, which counts as long as the coordinator is started with it; at least 16 characters.
    #[command(flatten)]
    pub join: JoinTokenArgs,
    /// The file of an operator's token with all rights. If it is there, its token counts as long as the coordinator is started with
    /// it; if not, a token is made and written there [default: admin.token in the state folder, made at the first start]
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// A new worker waits until an operator lets it in: fedavg workers approve
    #[arg(long)]
    pub approve: bool,
    /// Let only these workers register: NAME, or sha256:FINGERPRINT of a client's TLS certificate. May be given more than once
    #[arg(long, value_name = "WORKER", value_parser = allowed)]
    pub allow_worker: Vec<AllowedWorker>,
    /// A worker gets no tasks for a while once this many of its reports were refused within ten minutes for what is in them; 0: never
    #[arg(long, value_name = "N", default_value = "8", value_parser = any_u32)]
    pub quarantine_after: u32,
    /// How long that lasts, in seconds; fedavg workers release ends it
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = super::values::seconds)]
    pub quarantine_for: std::time::Duration,
    /// The most tokens that are known at once
    #[arg(long, value_name = "N", default_value = "1000", value_parser = at_least_one)]
    pub max_tokens: usize,
}

fn allowed(text: &str) -> Result<AllowedWorker, String> {
    if text.is_empty() {
        return Err("is empty; give a worker's name".to_string());
    }
    if !text.starts_with("sha256:") {
        return Ok(AllowedWorker::Name(text.to_string()));
    }
    let fingerprint = text.parse::<Fingerprint>();
    let fingerprint = fingerprint.map_err(|error| error.to_string())?;
    Ok(AllowedWorker::Certificate(fingerprint.bytes()))
}

/// The tokens that a coordinator made when it started.
#[derive(Debug, Default)]
pub(super) struct FirstTokens {
    /// The file of the admin token; none if there is none that is known.
    pub admin_file: Option<PathBuf>,
    /// The join token, which can't be shown again.
    pub join: Option<Token>,
    /// Removed with this value, if the coordinator keeps nothing.
    _folder: Option<TempDir>,
}

impl AccessArgs {
    /// The configuration.
    pub(super) fn config(&self) -> Result<AccessConfig, Failure> {
        let join_token = self.join.token()?;
        check_length("the join token", join_token.as_ref())?;
        let mut admin_token = None;
        if let Some(file) = &self.admin_token_file
            && file.exists()
        {
            let token = token_of("--admin-token-file", file)?;
            check_length("--admin-token-file", Some(&token))?;
            admin_token = Some(token);
        }
        Ok(AccessConfig {
            join_token,
            admin_token,
            open: self.open,
            approve: self.approve,
            allowed: self.allow_worker.clone(),
            max_tokens: self.max_tokens,
            quarantine: QuarantineLimits {
                refusals: self.quarantine_after,
                lasts: self.quarantine_for,
                ..QuarantineLimits::default()
            },
        })
    }

    /// Makes the tokens that a coordinator lacks, which keeps its state in this folder, or in memory.
    pub(super) async fn first_tokens(
        &self,
        coordinator: &Coordinator,
        folder: Option<&Path>,
    ) -> Result<FirstTokens, Failure> {
        if self.open {
            return Ok(FirstTokens::default());
        }
        let here = Caller::in_process();
        let known = coordinator.tokens(&here).await.map_err(failure)?;
        let is_first = known.iter().all(|token| token.token.0 == 0);
        let mut first = FirstTokens::default();
        let file = match (&self.admin_token_file, folder) {
            (Some(file), _) => file.clone(),
            (None, Some(folder)) => folder.join(ADMIN_FILE),
            (None, None) => {
                let folder = tempfile::Builder::new()
                    .prefix("fedavg-coordinator-")
                    .tempdir();
                let folder = folder
                    .map_err(|error| Failure::because("no folder for the admin token", error))?;
                let file = folder.path().join(ADMIN_FILE);
                first._folder = Some(folder);
                file
            }
        };
        // At a first start, a file in the folder is left of a state that is gone: nobody knows its token.
        let is_left = is_first && self.admin_token_file.is_none();
        // Of a later start: only the hash of the first one's token is known, and its file may be on another machine by now.
        let wants_admin = is_first || self.admin_token_file.is_some();
        if file.exists() && !is_left {
            first.admin_file = Some(file);
        } else if wants_admin {
            let new = NewToken::operator("admin", Scope::Admin);
            let made = coordinator
                .create_token(&here, new)
                .await
                .map_err(failure)?;
            put_secret(&file, &made.secret)?;
            first.admin_file = Some(file);
        }
        let has_join = known.iter().any(|token| token.kind == TokenKind::Join);
        if is_first && !has_join {
            let made = coordinator.create_token(&here, NewToken::join("first"));
            first.join = Some(made.await.map_err(failure)?.secret);
        }
        Ok(first)
    }
}

impl FirstTokens {
    /// Says how to make the tokens that can't be shown any more.
    pub fn tell(&self) {
        if self.join.is_none() {
            tracing::info!(
                "join tokens are shown once, when they are made: \"fedavg token create NAME --join\" makes another"
            );
        }
        if self.admin_file.is_none() {
            tracing::warn!(
                "the file of the admin token is not there any more: --admin-token-file FILE makes another token, and the file"
            );
        }
    }

    /// The lines that add a worker and that connect the command line, to be copied. `url` is how the coordinator is reached, with
    /// what else a client needs to reach it; `who` are the workers.
    pub fn lines(&self, who: &str, url: &str, is_open: bool) -> String {
        let worker = format!("fedavg-worker --coordinator {url}");
        if is_open {
            return format!("{who} join with: {worker}");
        }
        let workers = match &self.join {
            // In the environment: other users of a machine see arguments.
            Some(token) => format!("{who} join with: FEDAVG_JOIN_TOKEN={} {worker}", token.0),
            None => format!("{who} join with: {worker} --join-token-file FILE"),
        };
        let operators = match &self.admin_file {
            Some(file) => format!(
                "operators connect with: fedavg status --coordinator {url} --token-file {}",
                file.display()
            ),
            None => format!(
                "operators connect with: fedavg status --coordinator {url} --token-file FILE"
            ),
        };
        format!("{workers}\n{operators}")
    }
}

/// Writes a secret into a new file that its owner alone can read.
pub(super) fn write_secret(path: &Path, secret: &Token) -> Result<(), Failure> {
    if path.exists() {
        return Err(Failure::of_file(path, "is there already; name a new file"));
    }
    put_secret(path, secret)
}

/// The same in the place of whatever file is there.
fn put_secret(path: &Path, secret: &Token) -> Result<(), Failure> {
    let mut file = WholeFile::create(path)?.private()?;
    let written = writeln!(file, "{}", secret.0);
    written.map_err(|error| Failure::of_file(path, format!("it can't be written: {error}")))?;
    file.put_in_place()
}

fn failure(error: OperatorError) -> Failure {
    Failure::because("the coordinator's tokens can't be made", error)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_secret_is_for_its_owner_alone_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin.token");
        let secret = Token("secret".to_string());
        write_secret(&file, &secret).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret\n");
        assert!(write_secret(&file, &secret).is_err());
    }

    #[test]
    fn a_worker_is_allowed_by_name_or_by_certificate() {
        let name = allowed("lab-1").unwrap();
        assert_eq!(name, AllowedWorker::Name("lab-1".to_string()));
        let digits = "0f".repeat(32);
        let certificate = allowed(&format!("sha256:{digits}")).unwrap();
        assert_eq!(certificate, AllowedWorker::Certificate([15; 32]));
        assert!(allowed("sha256:12").is_err() && allowed("").is_err());
    }
}
