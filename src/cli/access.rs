//! Who may ask a coordinator: its arguments, and the tokens of its first start.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use tempfile::TempDir;

use super::{
    Failure, JoinTokenArgs,
    failure::in_full,
    token::{check_length, token_of},
    values::{any_u32, whole},
    whole_file::WholeFile,
};
use crate::{
    coordinator::{AccessConfig, AllowedWorker, Coordinator, QuarantineLimits},
    disk::{self, Site},
    protocol::{CreatedToken, NewToken, Scope, Token, TokenKind, TokenSummary},
    transport::{Caller, Operator, OperatorError, http::Fingerprint},
};

/// The name of the admin token's file in the state folder.
const ADMIN_FILE: &str = "admin.token";
/// The name of an empty file that is in the state folder from before the first tokens are stored until they are shown.
const UNFINISHED: &str = "first-start";
/// The first start makes two.
const LEAST_TOKENS: u64 = 2;

/// Who may do what.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Ask no tokens of this machine: each of its users is then an operator and may add workers. Only with a loopback address
    #[arg(long, conflicts_with_all = ["admin_token_file", "join_token_file"])]
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
    /// The most tokens that are known at once, at least 2
    #[arg(long, value_name = "N", default_value = "1000", value_parser = tokens)]
    pub max_tokens: usize,
}

fn tokens(text: &str) -> Result<usize, String> {
    whole(text, LEAST_TOKENS, usize::MAX as u64).map(|number| number as usize)
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
    /// Why the file that is there is of no use.
    admin_problem: Option<String>,
    /// The join token, which can't be shown again.
    pub join: Option<CreatedToken>,
    /// At a first start: the file that is there until it is over.
    unfinished: Option<PathBuf>,
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
        if let (Some(join), Some(admin)) = (&join_token, &admin_token)
            && join.matches(admin)
        {
            return Err(Failure::Usage(
                "the join token and the token of --admin-token-file are the same: each worker would be an administrator. Give \
                 one of them another token"
                    .to_string(),
            ));
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

    /// Makes the tokens that a coordinator lacks, which keeps its state in this folder, or in memory. A first start is over once
    /// [`FirstTokens::told`] is called: the next start after one that ended before makes its tokens once more.
    pub(super) async fn first_tokens(
        &self,
        coordinator: &Coordinator,
        folder: Option<&Path>,
    ) -> Result<FirstTokens, Failure> {
        if self.open {
            return Ok(FirstTokens::default());
        }
        let here = Caller::in_process();
        let unfinished = folder.map(|folder| folder.join(UNFINISHED));
        let mut first = FirstTokens::default();
        let file = self.admin_file(folder, &mut first)?;
        let is_repeated = unfinished.as_ref().is_some_and(|mark| mark.exists());
        if is_repeated {
            // A file that the user names is not replaced, so its token goes on to count.
            let kept = match &self.admin_token_file {
                Some(file) => holder_of(coordinator, file).await,
                None => None,
            };
            revoke_all_but(coordinator, kept.as_deref()).await?;
        }
        let known = coordinator.tokens(&here).await.map_err(failure)?;
        let is_first = is_repeated || known.iter().all(|token| token.token.0 == 0);
        // At a first start, a file in the folder is left of a state that is gone: nobody knows its token.
        let is_left = is_first && self.admin_token_file.is_none();
        // Of a later start: only the hash of the first one's token is known, and its file may be on another machine by now.
        let wants_admin = is_first || self.admin_token_file.is_some();
        let mut place = None;
        if file.exists() && !is_left {
            match check_admin(coordinator, &file).await {
                Ok(()) => first.admin_file = Some(file.clone()),
                Err(problem) => first.admin_problem = Some(problem),
            }
        } else if wants_admin {
            // Before anything is stored: a folder that is missing, or that can't be written to, is found out here.
            place = Some(WholeFile::create(&file)?.private()?);
        }
        if is_first && let Some(mark) = unfinished {
            WholeFile::create(&mark)?.private()?.put_in_place()?;
            first.unfinished = Some(mark);
        }
        if let Some(place) = place {
            let new = NewToken::operator(free_name("admin", &known), Scope::Admin);
            let made = coordinator
                .create_token(&here, new)
                .await
                .map_err(failure)?;
            if let Err(failure) = write_secret(place, &file, &made.secret) {
                let _ = coordinator.revoke_token(&here, made.summary.token).await;
                return Err(failure);
            }
            first.admin_file = Some(file);
        }
        let has_join = known
            .iter()
            .any(|token| token.kind == TokenKind::Join && token.revoked.is_none());
        if is_first && !has_join {
            let made = coordinator.create_token(&here, NewToken::join("first"));
            first.join = Some(made.await.map_err(failure)?);
        }
        Ok(first)
    }

    /// Where the admin token is, or is to be.
    fn admin_file(
        &self,
        folder: Option<&Path>,
        first: &mut FirstTokens,
    ) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.admin_token_file {
            return Ok(file.clone());
        }
        if let Some(folder) = folder {
            return Ok(folder.join(ADMIN_FILE));
        }
        let folder = disk::temporary_folder("fedavg-coordinator-", None);
        let folder =
            folder.map_err(|error| Failure::because("no folder for the admin token", error))?;
        let file = folder.path().join(ADMIN_FILE);
        first._folder = Some(folder);
        Ok(file)
    }
}

/// Revokes what a first start made that did not end: nobody knows the secrets, but for one that has this name.
async fn revoke_all_but(coordinator: &Coordinator, kept: Option<&str>) -> Result<(), Failure> {
    let here = Caller::in_process();
    for token in coordinator.tokens(&here).await.map_err(failure)? {
        let counts = token.token.0 > 0 && token.revoked.is_none();
        if counts && Some(token.name.as_str()) != kept {
            let revoked = coordinator.revoke_token(&here, token.token);
            revoked.await.map_err(failure)?;
        }
    }
    Ok(())
}

/// The name of the token in this file, if it counts here.
async fn holder_of(coordinator: &Coordinator, file: &Path) -> Option<String> {
    let shown = Caller {
        token: Some(token_of("--admin-token-file", file).ok()?),
        ..Caller::in_process()
    };
    let access = coordinator.own_access(&shown).await;
    access.ok().map(|access| access.by)
}

/// Whether the token in this file is an administrator's here; if not, why.
async fn check_admin(coordinator: &Coordinator, file: &Path) -> Result<(), String> {
    let token = token_of("the admin token's file", file).map_err(|failure| failure.to_string())?;
    let shown = Caller {
        token: Some(token),
        ..Caller::in_process()
    };
    let checked = coordinator.authorize(&shown, Scope::Admin).await;
    checked.map_err(|error| format!("{}: {}", file.display(), in_full(&error)))
}

/// This name, or the first of `NAME-2`, `NAME-3` and so on that no token has which counts.
fn free_name(name: &str, known: &[TokenSummary]) -> String {
    let mut free = name.to_string();
    let mut number = 1;
    while known
        .iter()
        .any(|token| token.name == free && token.revoked.is_none())
    {
        number += 1;
        free = format!("{name}-{number}");
    }
    free
}

impl FirstTokens {
    /// The tokens are written, and `shown` to who started the coordinator: its first start is over. A join token that could not be
    /// shown is revoked, since nobody knows it.
    pub async fn told(&self, coordinator: &Coordinator, shown: Result<(), Failure>) {
        if let (Some(join), Err(failure)) = (&self.join, shown) {
            let token = join.summary.token;
            let here = Caller::in_process();
            let is_revoked = coordinator.revoke_token(&here, token).await.is_ok();
            tracing::warn!(
                %token, is_revoked,
                "the join token could not be shown ({failure}), so nobody knows it: \"fedavg token create NAME --join\" makes another"
            );
        }
        let Some(mark) = &self.unfinished else {
            return;
        };
        if let Err(error) = disk::remove_file(Site::OutputRemove, mark) {
            tracing::warn!(
                %error,
                "{} can't be removed: the next start revokes all tokens, and makes the first ones again. Remove it",
                mark.display()
            );
        }
    }

    /// Says how to make the tokens that can't be shown any more.
    pub fn tell(&self) {
        if self.join.is_none() {
            tracing::info!(
                "join tokens are shown once, when they are made: \"fedavg token create NAME --join\" makes another"
            );
        }
        if let Some(problem) = &self.admin_problem {
            tracing::warn!(
                "the file of the admin token is of no use: {problem}. --admin-token-file NEW makes another token, and the file NEW"
            );
        } else if self.admin_file.is_none() {
            tracing::warn!(
                "no admin token is in the state folder: use the file that you have, or make another with --admin-token-file FILE"
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
            Some(made) => {
                format!(
                    "{who} join with: FEDAVG_JOIN_TOKEN={} {worker}",
                    made.secret.0
                )
            }
            None => format!("{who} join with: {worker} --join-token-file FILE"),
        };
        let operators = match &self.admin_file {
            Some(file) => {
                // Lines to copy are used in other folders.
                let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                format!(
                    "operators connect with: fedavg status --coordinator {url} --token-file {}",
                    file.display()
                )
            }
            None => format!(
                "operators connect with: fedavg status --coordinator {url} --token-file FILE"
            ),
        };
        format!("{workers}\n{operators}")
    }
}

/// A new file for a secret, which its owner alone can read. Nothing is in its place before [`write_secret`].
pub(super) fn new_secret_file(path: &Path) -> Result<WholeFile, Failure> {
    if path.exists() {
        return Err(Failure::of_file(path, "is there already; name a new file"));
    }
    WholeFile::create(path)?.private()
}

/// Writes a secret into its file, and puts that in its place.
pub(super) fn write_secret(
    mut file: WholeFile,
    path: &Path,
    secret: &Token,
) -> Result<(), Failure> {
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
        write_secret(new_secret_file(&file).unwrap(), &file, &secret).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret\n");
        assert!(new_secret_file(&file).is_err());
        let missing = new_secret_file(&folder.path().join("missing/admin.token"));
        assert_eq!(missing.unwrap_err().code(), 2);
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
