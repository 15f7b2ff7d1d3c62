//! Tokens and the audit, for administrators.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::list::{Asked, Part, list};
use crate::{
    ids::TokenId,
    protocol::{AuditEntry, CreatedToken, NewToken, OwnAccess, TokenSummary},
    transport::http::{
        api::BASE,
        credentials::{Administers, AsOperator, Ids},
        json::Json,
        problem::Problem,
    },
};

/// What the token that is shown allows.
#[utoipa::path(get, path = "/access", operation_id = "get_own_access", tag = "operator", security(("operator_token" = ["read"])),
    responses((status = 200, description = "The token's name and its scope.", body = OwnAccess,
        example = json!({ "by": "ann", "scope": "submit" }))))]
pub(super) async fn own_access(asked: AsOperator) -> Result<axum::Json<OwnAccess>, Problem> {
    let access = asked.operator().own_access(&asked.caller);
    Ok(axum::Json(access.await?))
}

/// Makes a token. The answer is the only place that has the secret.
#[utoipa::path(post, path = "/tokens", operation_id = "create_token", tag = "access", security(("operator_token" = ["admin"])),
    request_body(content = NewToken, description = "What it is for.", examples(
        ("join" = (summary = "For three workers, within a day", value = json!({
            "name": "lab", "kind": "join", "uses": 3, "expires_in_s": 86400
        }))),
        ("operator" = (summary = "For an operator who submits jobs", value = json!({
            "name": "ann", "kind": "operator", "scope": "submit"
        }))))),
    responses((status = 201, description = "The token and its secret.", body = CreatedToken, example = json!({
        "summary": { "token": 3, "name": "lab", "kind": "join", "uses_left": 3, "created": 1790000000000u64 },
        "secret": "fedavg_join_5f2c1e0b7a9d"
    }))))]
pub(super) async fn create_token(
    asked: AsOperator<Administers>,
    Json(new): Json<NewToken>,
) -> Result<Response, Problem> {
    let made = asked.operator().create_token(&asked.caller, new);
    Ok((StatusCode::CREATED, axum::Json(made.await?)).into_response())
}

/// The tokens, without their secrets.
#[utoipa::path(get, path = "/tokens", operation_id = "list_tokens", tag = "access", security(("operator_token" = ["admin"])),
    responses((status = 200, description = "In order of their numbers. Those of the coordinator's configuration have number 0.",
        body = Vec<TokenSummary>, example = json!([
            { "token": 1, "name": "admin", "kind": "operator", "scope": "admin", "created": 1790000000000u64 }
        ]))))]
pub(super) async fn tokens(
    asked: AsOperator<Administers>,
) -> Result<axum::Json<Vec<TokenSummary>>, Problem> {
    let tokens = asked.operator().tokens(&asked.caller);
    Ok(axum::Json(tokens.await?))
}

/// Revokes a token. Workers that joined with it stay.
#[utoipa::path(delete, path = "/tokens/{token}", operation_id = "revoke_token", tag = "access",
    security(("operator_token" = ["admin"])),
    params(("token" = TokenId, Path, description = "The token's number.")),
    responses((status = 200, description = "The token as it is now.", body = TokenSummary, example = json!({
        "token": 3, "name": "lab", "kind": "join", "created": 1790000000000u64, "revoked": 1790000500000u64
    }))))]
pub(super) async fn revoke_token(
    asked: AsOperator<Administers>,
    Ids(token): Ids<TokenId>,
) -> Result<axum::Json<TokenSummary>, Problem> {
    let revoked = asked.operator().revoke_token(&asked.caller, token);
    Ok(axum::Json(revoked.await?))
}

/// Who did what: actions of operators, and admissions of workers.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit", tag = "access", security(("operator_token" = ["admin"])),
    params(
        ("after" = Option<u64>, Query, description = "Only entries after the one with this number."),
        ("limit" = Option<u64>, Query, minimum = 1,
            description = "At most this many entries, or fewer if the coordinator's own limit is lower. Without it, all.")),
    responses((status = 200, description = "In order.", body = Vec<AuditEntry>,
        headers(("Link" = String, description = "The next page, as `rel=\"next\"`, if there is one.")),
        example = json!([{
            "number": 1, "time": 1790000000000u64, "by": "admin", "from": "192.0.2.7", "action": "job_cancelled",
            "subject": "job 3"
        }]))))]
pub(super) async fn audit(asked: AsOperator<Administers>, part: Part) -> Result<Response, Problem> {
    let path = format!("{BASE}/audit");
    list(&path, part, move |after, limit| -> Asked<AuditEntry> {
        let (operator, caller) = (asked.exchange.app.operator.clone(), asked.caller.clone());
        Box::pin(async move { operator.audit_page(&caller, after, limit).await })
    })
    .await
}
