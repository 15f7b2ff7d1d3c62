//! Who may do what: tokens, and the workers that an operator lets in or puts out.

use super::{
    audit::Actor,
    config::AllowedWorker,
    facts::{TOKEN, json},
    handle::Coordinator,
    lists::FoundWorker,
    state::State,
    worker_access::{JoinedWith, Standing, WorkerAccess},
};
use crate::{
    access::{KnownToken, TokenHash, WORKER_PREFIX, hex, secret},
    ids::{Timestamp, TokenId, WorkerId},
    protocol::{
        AuditAction, CreatedToken, NewToken, OwnAccess, Registration, Scope, Token, TokenSummary,
        WorkerSummary,
    },
    report::{Refusal, RefusalKind},
    round::WorkerState,
    store::journal::{Batch, Fact, Stream},
    transport::{Caller, Credentials, Peer, Response},
};

/// What let a registration in.
pub(super) struct Joined {
    pub by: String,
    pub with: JoinedWith,
    /// The number of the token that was shown.
    pub token: Option<TokenId>,
    /// The worker that this one was before it left, was lost, or missed the answer: that is no further use of the token.
    pub instead_of: Option<WorkerId>,
}

impl Coordinator {
    /// Whether this caller may do what needs this scope. Code in this process may do all; others show an operator's token.
    pub(super) fn admit(&self, caller: &Caller, needed: Scope) -> Result<Actor, Refusal> {
        let peer = caller.peer;
        if self.is_open_to(peer) {
            return Ok(Actor::new("open", peer));
        }
        let Some(shown) = &caller.token else {
            // If code in this process shows a token, it asks for somebody else, whose token has to be checked.
            if peer == Peer::InProcess {
                return Ok(Actor::new("in process", peer));
            }
            return Err(unauthorized(
                "an operator's token is missing: show one with --token-file or FEDAVG_TOKEN",
            ));
        };
        let now = self.now();
        let state = self.state();
        let Some(known) = state.tokens.find(shown) else {
            return Err(state.unknown_token(
                shown,
                "operators show a token of their own (--token-file or FEDAVG_TOKEN)",
            ));
        };
        known.check_operator(needed, now)?;
        let TokenSummary { token, name, .. } = &known.summary;
        Ok(Actor::new(name.clone(), peer).with_token(*token))
    }

    /// What this caller may do.
    pub(super) fn own_scope(&self, caller: &Caller) -> Result<OwnAccess, Refusal> {
        let actor = self.admit(caller, Scope::Read)?;
        let mut scope = Scope::Read;
        for larger in Scope::ALL {
            if self.admit(caller, larger).is_ok() {
                scope = larger;
            }
        }
        Ok(OwnAccess::new(actor.by, scope))
    }

    /// Whether this caller may change something now: it is allowed to, and the journal's disk keeps up.
    pub(super) fn admit_change(&self, caller: &Caller, needed: Scope) -> Result<Actor, Refusal> {
        let actor = self.admit(caller, needed)?;
        self.check_stall()?;
        self.check_backlog()?;
        Ok(actor)
    }

    fn is_open_to(&self, peer: Peer) -> bool {
        self.0.config.access.open && peer.is_here() && peer != Peer::InProcess
    }

    /// Whether who shows this join token may register, as far as that can be said before the registration is read.
    pub(super) fn check_registrant(
        &self,
        peer: Peer,
        join_token: Option<&Token>,
    ) -> Result<(), Refusal> {
        let state = self.state();
        self.joined(&state, peer, join_token, None).map(drop)
    }

    /// What lets a registration in.
    pub(super) fn joined(
        &self,
        state: &State,
        peer: Peer,
        join_token: Option<&Token>,
        registration: Option<&Registration>,
    ) -> Result<Joined, Refusal> {
        let certificate = peer
            .certificate()
            .map(|hash| JoinedWith::Certificate(hex(&hash)));
        let without = |by: &str| Joined {
            by: by.to_string(),
            with: certificate.clone().unwrap_or_default(),
            token: None,
            instead_of: None,
        };
        if self.is_open_to(peer) {
            return Ok(without("open"));
        }
        let Some(shown) = join_token else {
            if peer == Peer::InProcess {
                return Ok(without("in process"));
            }
            return Err(unauthorized(
                "the join token is missing: show one with --join-token-file or FEDAVG_JOIN_TOKEN",
            ));
        };
        let Some(known) = state.tokens.find(shown) else {
            return Err(state.unknown_token(
                shown,
                "a worker registers with a join token (--join-token-file or FEDAVG_JOIN_TOKEN)",
            ));
        };
        let with = certificate.unwrap_or(JoinedWith::Token(known.summary.token));
        let TokenSummary { token, name, .. } = &known.summary;
        let instead_of = if known.summary.uses_left.is_some() {
            state.former_self(name, &with, registration)
        } else {
            None
        };
        known.check_join(self.now(), instead_of.is_some())?;
        Ok(Joined {
            by: name.clone(),
            with,
            token: Some(*token),
            instead_of,
        })
    }

    /// Refuses a worker that is not on the list of those that may register.
    pub(super) fn check_allowed(
        &self,
        peer: Peer,
        registration: &Registration,
    ) -> Result<(), Refusal> {
        let allowed = &self.0.config.access.allowed;
        let is_allowed = |allowed: &AllowedWorker| match allowed {
            AllowedWorker::Name(name) => *name == registration.name,
            AllowedWorker::Certificate(hash) => peer.certificate() == Some(*hash),
        };
        if allowed.is_empty() || allowed.iter().any(is_allowed) {
            return Ok(());
        }
        let detail = format!(
            "the coordinator has a list of the workers that may register (--allow-worker), and {:?} is not on it",
            registration.name
        );
        Err(Refusal::new(RefusalKind::Forbidden, detail))
    }

    /// Writes a worker's use of a join token down, if its uses are counted.
    pub(super) fn use_token(&self, state: &mut State, joined: &Joined, shown: Option<&Token>) {
        if joined.instead_of.is_some() {
            return;
        }
        let found = shown.and_then(|shown| state.tokens.find(shown));
        let Some(token) = found.map(|known| known.summary.token) else {
            return;
        };
        if let Some(known) = state.tokens.note_use(token).cloned() {
            self.write_token(state, &known, None);
        }
    }

    fn write_token(&self, state: &mut State, known: &KnownToken, forgotten: Option<TokenId>) {
        let name = |token: TokenId| format!("{TOKEN}{token}");
        let mut batch = Batch::default().fact(name(known.summary.token), json(known));
        if let Some(forgotten) = forgotten {
            batch.facts.push(Fact {
                name: name(forgotten),
                body: None,
            });
        }
        self.append(state, Stream::Coordinator, batch);
        self.write_workers(state, &[]);
    }

    pub(super) fn make_token(
        &self,
        actor: &Actor,
        new: &NewToken,
    ) -> Result<CreatedToken, Refusal> {
        // Before the lock is taken: the operating system may let us wait for randomness.
        let random = draw()?;
        let now = self.now();
        let most = self.0.config.access.max_tokens.max(1);
        let mut state = self.state();
        let (known, secret, forgotten) = state.tokens.create(new, &random, now, most)?;
        self.write_token(&mut state, &known, forgotten);
        self.note_action(&mut state, actor, AuditAction::TokenCreated, named(&known));
        Ok(CreatedToken::new(known.summary, secret))
    }

    pub(super) fn list_tokens(&self) -> Vec<TokenSummary> {
        let state = self.state();
        state
            .tokens
            .list()
            .map(|known| known.summary.clone())
            .collect()
    }

    pub(super) fn end_token(&self, actor: &Actor, token: TokenId) -> Result<TokenSummary, Refusal> {
        let now = self.now();
        let mut state = self.state();
        // Code in this process needs no token, so it locks nobody out for good.
        if actor.needs_token() && state.tokens.is_last_admin(token, now) {
            let detail = format!(
                "token {token} is the last one with the scope admin: make another first (fedavg token create NAME --scope admin)"
            );
            return Err(Refusal::new(RefusalKind::Conflict, detail));
        }
        let (known, is_new) = state.tokens.revoke(token, now)?;
        let known = known.clone();
        if is_new {
            self.write_token(&mut state, &known, None);
            self.note_action(&mut state, actor, AuditAction::TokenRevoked, named(&known));
            state.revocations.send_replace(());
        }
        Ok(known.summary)
    }

    /// Takes a worker's right to come back, and its name from it.
    pub(super) fn put_out(
        &self,
        actor: &Actor,
        worker: WorkerId,
    ) -> Result<WorkerSummary, Refusal> {
        let mut state = self.state();
        let access = worker_access(&mut state, worker)?;
        access.revoked = true;
        state.note_busy(worker, Vec::new());
        if state.leave(worker) {
            self.worker_lost(&mut state, worker);
        }
        // A lost one is not live, and has its leases no more; its token must not bring it back.
        self.write_workers(&mut state, &[worker]);
        self.tell_of_worker(&mut state, actor, AuditAction::WorkerRevoked, worker)
    }

    /// Lets a worker have tasks that waits for it, or that is in quarantine.
    pub(super) fn let_in(&self, actor: &Actor, worker: WorkerId) -> Result<WorkerSummary, Refusal> {
        let mut state = self.state();
        let access = worker_access(&mut state, worker)?;
        if access.revoked {
            let detail = format!(
                "the token of worker {worker} was revoked: it has to register again, and gets another number then"
            );
            return Err(Refusal::new(RefusalKind::Conflict, detail));
        }
        let action = match access.standing {
            Standing::Admitted => {
                let detail = format!("worker {worker} is admitted already");
                return Err(Refusal::new(RefusalKind::Conflict, detail));
            }
            Standing::Pending => AuditAction::WorkerApproved,
            Standing::Quarantined { .. } => AuditAction::WorkerReleased,
        };
        access.standing = Standing::Admitted;
        self.write_workers(&mut state, &[worker]);
        let summary = self.tell_of_worker(&mut state, actor, action, worker);
        self.join_if_live(&mut state, worker);
        summary
    }

    /// Counts a report that was refused for what is in it. After too many the worker gets no tasks for a while.
    pub(super) fn note_refused_report(&self, worker: WorkerId, refusal: &Refusal) {
        if !matches!(
            refusal.kind,
            RefusalKind::Malformed | RefusalKind::ExamplesExceeded
        ) {
            return;
        }
        let now = self.now();
        let mut state = self.state();
        let Ok(access) = worker_access(&mut state, worker) else {
            return;
        };
        if !access.note_refused(refusal, &self.0.config.access.quarantine, now) {
            return;
        }
        tracing::warn!(%worker, reason = access.shown(now).1, "a worker is in quarantine");
        self.write_workers(&mut state, &[worker]);
        let coordinator = Actor::coordinator();
        let action = AuditAction::WorkerQuarantined;
        let _ = self.tell_of_worker(&mut state, &coordinator, action, worker);
        self.worker_lost(&mut state, worker);
    }

    /// Ends a quarantine whose time is over.
    pub(super) fn release_if_due(&self, state: &mut State, worker: WorkerId, now: Timestamp) {
        let Ok(access) = worker_access(state, worker) else {
            return;
        };
        if access.release_if_due(now) {
            self.write_workers(state, &[worker]);
            let coordinator = Actor::coordinator();
            let action = AuditAction::WorkerReleased;
            let _ = self.tell_of_worker(state, &coordinator, action, worker);
            self.join_if_live(state, worker);
        }
    }

    fn join_if_live(&self, state: &mut State, worker: WorkerId) {
        let found = state.roster.find(worker);
        if found.is_some_and(|record| record.state == WorkerState::Live) {
            self.worker_joined(state, worker);
        }
    }

    fn tell_of_worker(
        &self,
        state: &mut State,
        actor: &Actor,
        action: AuditAction,
        worker: WorkerId,
    ) -> Result<WorkerSummary, Refusal> {
        let record = state.roster.find(worker).ok_or_else(|| unknown(worker))?;
        let subject = format!("worker {worker} ({})", record.info.registration.name);
        let summary = FoundWorker::of(state, worker, record).summary(self.now());
        self.note_action(state, actor, action, subject);
        Ok(summary)
    }

    /// Gives a worker a new token. The one that it has shown counts until the new one is shown.
    pub(super) fn rotate(
        &self,
        peer: Peer,
        credentials: &Credentials,
    ) -> Result<Response, Refusal> {
        let token = draw_token()?;
        let mut state = self.state();
        state.authenticate(credentials)?;
        let worker = credentials.worker;
        state.rotate(
            worker,
            TokenHash::of(&credentials.token),
            TokenHash::of(&token),
        );
        self.write_workers(&mut state, &[worker]);
        let actor = Actor::new("worker", peer);
        let action = AuditAction::WorkerTokenRotated;
        self.tell_of_worker(&mut state, &actor, action, worker)?;
        Ok(Response::Rotated(token))
    }
}

/// A worker's token.
pub(super) fn draw_token() -> Result<Token, Refusal> {
    Ok(secret(WORKER_PREFIX, &draw()?))
}

fn draw() -> Result<[u8; 32], Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Refusal::new(
            RefusalKind::Busy,
            format!("no randomness for a token: {error}"),
        )
    })?;
    Ok(bytes)
}

fn named(known: &KnownToken) -> String {
    let TokenSummary {
        token, name, kind, ..
    } = &known.summary;
    match known.summary.scope {
        Some(scope) => format!("{kind} token {token} ({name}, {scope})"),
        None => format!("{kind} token {token} ({name})"),
    }
}

fn worker_access(state: &mut State, worker: WorkerId) -> Result<&mut WorkerAccess, Refusal> {
    let info = state.roster.info_mut(worker);
    info.map(|info| &mut info.access)
        .ok_or_else(|| unknown(worker))
}

fn unknown(worker: WorkerId) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("no worker {worker}"))
}

fn unauthorized(detail: &str) -> Refusal {
    Refusal::new(RefusalKind::Unauthorized, detail)
}
