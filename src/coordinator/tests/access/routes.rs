//! The table: each operation of the OpenAPI document with each kind of credential. The document says which may pass.

use serde_json::Value;

use super::{trusting::Trusting, *};
use crate::transport::http::{openapi, router_of};

/// What a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Garbage,
    Join,
    ExpiredJoin,
    UsedJoin,
    OwnWorker,
    OtherWorker,
    RevokedWorker,
    RevokedOperator,
    ExpiredOperator,
    Operator(Scope),
}

const ALL: [Shown; 13] = [
    Shown::Nothing,
    Shown::Garbage,
    Shown::ExpiredJoin,
    Shown::UsedJoin,
    Shown::OtherWorker,
    Shown::RevokedWorker,
    Shown::RevokedOperator,
    Shown::ExpiredOperator,
    // Those that may pass somewhere come last: what they ask for is done.
    Shown::Join,
    Shown::Operator(Scope::Read),
    Shown::Operator(Scope::Submit),
    Shown::Operator(Scope::Admin),
    Shown::OwnWorker,
];

/// An operation, with its rule: the credentials of which one is enough.
struct Operation {
    name: String,
    line: String,
    /// None: for everybody.
    rule: Option<Vec<(String, Option<Scope>)>>,
}

/// The operations of the document.
fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(openapi()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete", "head"] {
            let Some(operation) = item.get(method) else {
                continue;
            };
            let name = operation["operationId"].as_str().unwrap().to_string();
            let path = path
                .replace("{worker}", "1")
                .replace("{job}", "1")
                .replace("{round}", "1")
                .replace("{client}", "0")
                .replace("{version}", "0")
                .replace("{payload}", "frozen")
                .replace("{token}", "1");
            assert!(!path.contains('{'), "{path} has a part without a value");
            let rule = rule(&name, &operation["security"]);
            let line = format!("{} {path}", method.to_uppercase());
            found.push(Operation { name, line, rule });
        }
    }
    found
}

/// An operation without a rule is a mistake: a route that everybody may use says so by an empty one.
fn rule(name: &str, security: &Value) -> Option<Vec<(String, Option<Scope>)>> {
    let alternatives = security.as_array();
    let alternatives = alternatives.unwrap_or_else(|| panic!("{name} has no rule"));
    assert!(!alternatives.is_empty(), "{name} has no rule");
    let mut rule = Vec::new();
    for alternative in alternatives {
        // An empty one is for everybody.
        let (scheme, scopes) = alternative.as_object().unwrap().iter().next()?;
        let scope = scopes.as_array().unwrap().first();
        let scope = scope.map(|scope| scope.as_str().unwrap().parse().unwrap());
        assert_eq!(scheme == "operator_token", scope.is_some(), "{name}");
        rule.push((scheme.clone(), scope));
    }
    Some(rule)
}

/// Whether the rule lets this pass.
fn passes(operation: &Operation, shown: Shown) -> bool {
    let Some(rule) = &operation.rule else {
        return true;
    };
    rule.iter()
        .any(|(scheme, needed)| match (&**scheme, shown) {
            ("join_token", Shown::Join) | ("worker_token", Shown::OwnWorker) => true,
            ("operator_token", Shown::Operator(scope)) => {
                needed.is_none_or(|needed| scope >= needed)
            }
            _ => false,
        })
}

/// Who shows nothing, what nobody knows, or a token that has ended, is asked for a token (401). A known one of another kind is told
/// so (403); as a worker's, it is one of another kind also after its end.
fn refusals(operation: &Operation, shown: Shown) -> &'static [u16] {
    match shown {
        Shown::Nothing | Shown::Garbage => &[401],
        Shown::ExpiredJoin | Shown::UsedJoin | Shown::RevokedOperator | Shown::ExpiredOperator => {
            if operation.asks_for_a_worker(shown) {
                &[403]
            } else {
                &[401]
            }
        }
        Shown::RevokedWorker => &[401, 403],
        _ => &[403],
    }
}

impl Operation {
    /// Whether a request that shows this is taken for a worker's. An operator's route that workers have, too, takes its asker for a
    /// worker only by a header.
    fn asks_for_a_worker(&self, shown: Shown) -> bool {
        let rule = self.rule.as_deref().unwrap_or_default();
        let is_workers = rule.iter().any(|(scheme, _)| scheme == "worker_token");
        is_workers && (!matches!(shown, Shown::Operator(_)) || rule.len() == 1)
    }
}

/// A closed coordinator with two workers, one that was put out, a job that has ended, and all kinds of tokens.
struct Town {
    lab: Lab,
    own: Credentials,
    other: Credentials,
    revoked: Credentials,
    tokens: Vec<(Shown, Token)>,
}

impl Town {
    /// `alone`: the routes alone keep callers out, since the operator behind them trusts everybody.
    async fn open(alone: bool) -> Self {
        let mut lab = closed(|_| {}).await;
        if alone {
            let operator = Arc::new(Trusting(lab.coordinator.clone()));
            let handler = Arc::new(lab.coordinator.clone());
            let listener = listen(([127, 0, 0, 1], 0).into(), false).await.unwrap();
            lab.address = listener.local_addr().unwrap();
            let routes = router_of(handler, operator, RouterConfig::default());
            let never = std::future::pending();
            lab._server = tokio::spawn(serve(listener, routes, ServerConfig::default(), never));
        }
        let (own, other) = (lab.worker("own").await, lab.worker("other").await);
        let revoked = lab.worker("revoked").await;
        lab.coordinator
            .revoke_worker(&HERE, revoked.worker)
            .await
            .unwrap();
        let job = lab.submit(|_| {}).await;
        lab.coordinator.cancel(&HERE, job).await.unwrap();
        assert_eq!((own.worker.0, job.0), (1, 1));
        let mut tokens = Vec::new();
        // Token 1 is the one that revocation is asked of.
        lab.token(NewToken::join("to be revoked")).await;
        let (_, join) = lab.token(NewToken::join("join")).await;
        tokens.push((Shown::Join, join));
        let expired = lab.expired_token(NewToken::join("expired")).await;
        tokens.push((Shown::ExpiredJoin, expired));
        let (used, secret) = lab.token(NewToken::join("used").uses(1)).await;
        lab.coordinator.state().tokens.note_use(used);
        tokens.push((Shown::UsedJoin, secret));
        for scope in Scope::ALL {
            let (_, secret) = lab.token(NewToken::operator(scope.name(), scope)).await;
            tokens.push((Shown::Operator(scope), secret));
        }
        let admin = || NewToken::operator("former", Scope::Admin);
        let (token, secret) = lab.token(admin()).await;
        lab.coordinator.revoke_token(&HERE, token).await.unwrap();
        tokens.push((Shown::RevokedOperator, secret));
        let expired = lab.expired_token(admin()).await;
        tokens.push((Shown::ExpiredOperator, expired));
        tokens.push((Shown::Garbage, Token("garbage".to_string())));
        Self {
            lab,
            own,
            other,
            revoked,
            tokens,
        }
    }

    fn token(&self, shown: Shown) -> Option<&Token> {
        match shown {
            Shown::Nothing => None,
            Shown::OwnWorker => Some(&self.own.token),
            Shown::OtherWorker => Some(&self.other.token),
            Shown::RevokedWorker => Some(&self.revoked.token),
            _ => self
                .tokens
                .iter()
                .find(|(found, _)| *found == shown)
                .map(|(_, token)| token),
        }
    }

    async fn status(&self, operation: &Operation, shown: Shown) -> u16 {
        let mut headers = "content-type: application/json\r\n".to_string();
        if let Some(token) = self.token(shown) {
            headers += &format!("authorization: Bearer {}\r\n", token.0);
        }
        if operation.asks_for_a_worker(shown) {
            headers += "fedavg-worker: 1\r\n";
        }
        let body = match &*operation.name {
            // It would otherwise wait for a task.
            "poll" => r#"{"busy":[],"wait_ms":0}"#,
            _ => "{}",
        };
        self.lab
            .send(&operation.line, &headers, body.as_bytes())
            .await
            .0
    }
}

#[tokio::test]
async fn each_route_lets_those_pass_whom_its_rule_names_and_nobody_else() {
    compare(false).await;
}

#[tokio::test]
async fn each_route_keeps_callers_out_by_itself() {
    compare(true).await;
}

/// Each operation with each credential.
async fn compare(alone: bool) {
    let operations = operations();
    assert!(operations.len() > 30);
    for operation in operations {
        // A fresh one for each: what the last ones ask for is done.
        let town = Town::open(alone).await;
        for shown in ALL {
            let status = town.status(&operation, shown).await;
            let Operation { name, line, .. } = &operation;
            if passes(&operation, shown) {
                let refused = [401, 403].contains(&status);
                assert!(!refused, "{name} ({line}) refuses {shown:?}: {status}");
                assert!(status < 500, "{name} ({line}) {shown:?}: {status}");
            } else {
                let expected = refusals(&operation, shown);
                assert!(
                    expected.contains(&status),
                    "{name} ({line}) answers {shown:?} with {status} instead of {expected:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn nobody_but_code_in_the_process_needs_no_token_on_this_machine_either() {
    let town = Town::open(false).await;
    let jobs = "GET /api/v1/jobs";
    assert_eq!(town.lab.send(jobs, "", b"").await.0, 401);
    assert_eq!(town.lab.send("GET /api/v1/health", "", b"").await.0, 200);
    assert!(town.lab.coordinator.jobs(&HERE).await.is_ok());
}
