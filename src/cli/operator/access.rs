//! `fedavg token` and `fedavg audit`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{Client, ConnectArgs};
use crate::{
    cli::{
        Align, Failure, Screen, Table,
        access::{new_secret_file, write_secret},
        block_on,
        failure::in_full,
        values::{seconds, time, u32_above_0},
    },
    ids::TokenId,
    protocol::{AuditEntry, NewToken, Scope, TokenKind, TokenSummary},
    transport::Operator,
};

/// Make, list and revoke tokens; needs the scope admin.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    #[allow(missing_docs)]
    Create(CreateTokenArgs),
    #[allow(missing_docs)]
    List(ListTokensArgs),
    #[allow(missing_docs)]
    Revoke(RevokeTokenArgs),
}

impl TokenCommand {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// No coordinator, or one that refuses.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        match self {
            Self::Create(arguments) => arguments.run(screen),
            Self::List(arguments) => arguments.run(screen),
            Self::Revoke(arguments) => arguments.run(screen),
        }
    }
}

/// Make a token for workers that join, or for an operator. It is printed once, and never again.
#[derive(Debug, Clone, Args)]
pub struct CreateTokenArgs {
    /// A name for people, such as whom you give it to
    #[arg(value_name = "NAME")]
    pub name: String,
    /// For workers that join
    #[arg(long, conflicts_with = "scope")]
    pub join: bool,
    /// For an operator: read (see jobs and models), submit (submit, pause and cancel jobs, too) or admin (all)
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<Scope>,
    /// With --join: how many workers may register with it. A worker that left or was lost and comes back under its name is the
    /// same one, as long as the coordinator remembers it (--keep-workers there) [default: any number]
    #[arg(long, value_name = "N", value_parser = u32_above_0, conflicts_with = "scope")]
    pub uses: Option<u32>,
    /// Refuse it after this many seconds, at least 1 [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = expiry)]
    pub expires: Option<Duration>,
    /// Write the token to a new file that only you can read, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl CreateTokenArgs {
    fn run(&self, screen: &Screen) -> Result<(), Failure> {
        if self.scope.is_none() && !self.join {
            return Err(Failure::Usage(
                "say what the token is for: --join (workers that join), or --scope read, submit or admin (an operator)"
                    .to_string(),
            ));
        }
        let client = self.connect.client()?;
        let mut new = match self.scope {
            Some(scope) => NewToken::operator(&*self.name, scope),
            None => NewToken::join(&*self.name),
        };
        new.uses = self.uses;
        new.expires_in_s = self.expires.map(|time| time.as_secs());
        // Before it is made: a token that can't be written would count, and nobody would have it.
        let place = match &self.output {
            Some(file) => Some((file, new_secret_file(file)?)),
            None => {
                screen.check_output()?;
                None
            }
        };
        let made = block_on(async {
            let made = client.operator.create_token(&client.caller, new);
            made.await.map_err(|error| client.failure(error))
        })?;
        let is_printed = place.is_none();
        let written = match place {
            Some((file, place)) => write_secret(place, file, &made.secret),
            None => screen.print(&made.secret.0),
        };
        if let Err(failure) = written {
            return Err(take_back(&client, made.summary.token, failure));
        }
        if is_printed {
            screen.note(&described(&made.summary));
            return Ok(());
        }
        screen.print(&described(&made.summary))
    }
}

/// Revokes a token that could not be written: nobody has it.
fn take_back(client: &Client, token: TokenId, failure: Failure) -> Failure {
    let revoked = block_on(async {
        let revoked = client.operator.revoke_token(&client.caller, token);
        revoked.await.map_err(|error| client.failure(error))
    });
    let what = match revoked {
        Ok(_) => format!("token {token} could not be written, so it was revoked again"),
        Err(error) => format!(
            "token {token} could not be written, and counts: \"fedavg token revoke {token}\" revokes it, which failed here ({})",
            in_full(&error)
        ),
    };
    Failure::because(what, failure)
}

/// After how long a token expires, in seconds.
fn expiry(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time < Duration::from_secs(1) {
        return Err("too short: 1 is the least".to_string());
    }
    Ok(time)
}

/// List the tokens, without their secrets.
#[derive(Debug, Clone, Args)]
pub struct ListTokensArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl ListTokensArgs {
    fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let tokens = block_on(async {
            let tokens = client.operator.tokens(&client.caller);
            tokens.await.map_err(|error| client.failure(error))
        })?;
        if self.json {
            return screen.print_json(&tokens);
        }
        let mut table = Table::new(&[
            ("token", Align::Right),
            ("name", Align::Left),
            ("for", Align::Left),
            ("made", Align::Left),
            ("", Align::Left),
        ]);
        for token in tokens {
            table.row([
                token.token.to_string(),
                token.name.clone(),
                purpose(&token),
                made(&token),
                remains(&token),
            ]);
        }
        screen.print(&table.to_string())
    }
}

/// Revoke a token. Workers that joined with it stay: fedavg workers revoke puts one out.
#[derive(Debug, Clone, Args)]
pub struct RevokeTokenArgs {
    /// The token's number, as the list has it
    #[arg(value_name = "TOKEN")]
    pub token: TokenId,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl RevokeTokenArgs {
    fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let revoked = block_on(async {
            let revoked = client.operator.revoke_token(&client.caller, self.token);
            revoked.await.map_err(|error| client.failure(error))
        })?;
        screen.print(&format!("revoked: {}", described(&revoked)))
    }
}

/// Show who did what: operators' actions, and the admission of workers; needs the scope admin.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Only entries after the one with this number
    #[arg(long, value_name = "N", default_value = "0")]
    pub after: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl AuditArgs {
    /// Prints a line per entry.
    ///
    /// # Errors
    ///
    /// No coordinator, or one that refuses.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let client = self.connect.client()?;
        let entries = block_on(async {
            let entries = client.operator.audit(&client.caller, self.after);
            entries.await.map_err(|error| client.failure(error))
        })?;
        if self.json {
            return screen.print_json(&entries);
        }
        let mut table = Table::new(&[
            ("", Align::Right),
            ("time", Align::Left),
            ("by", Align::Left),
            ("from", Align::Left),
            ("what", Align::Left),
        ]);
        for AuditEntry {
            number,
            time: at,
            by,
            token,
            from,
            action,
            subject,
            ..
        } in entries
        {
            let what = format!("{} {subject}", action.words());
            let from = from.unwrap_or_default();
            let by = match token {
                Some(token) => format!("{by} (token {token})"),
                None => by,
            };
            table.row([number.to_string(), time(at), by, from, what]);
        }
        screen.print(&table.to_string())
    }
}

fn purpose(token: &TokenSummary) -> String {
    match (token.kind, token.scope) {
        (TokenKind::Operator, Some(scope)) => format!("operator, {scope}"),
        (kind, _) => kind.to_string(),
    }
}

fn made(token: &TokenSummary) -> String {
    if token.token == TokenId(0) {
        return "by configuration".to_string();
    }
    time(token.created)
}

fn remains(token: &TokenSummary) -> String {
    let mut parts = Vec::new();
    if let Some(revoked) = token.revoked {
        parts.push(format!("revoked {}", time(revoked)));
    }
    if let Some(expires) = token.expires {
        parts.push(format!("ends {}", time(expires)));
    }
    if let Some(left) = token.uses_left {
        parts.push(format!("{left} more to join"));
    }
    parts.join(", ")
}

fn described(token: &TokenSummary) -> String {
    let text = format!("token {} ({}), {}", token.token, token.name, purpose(token));
    match remains(token).as_str() {
        "" => text,
        remains => format!("{text}, {remains}"),
    }
}
