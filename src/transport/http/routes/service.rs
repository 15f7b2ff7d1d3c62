//! The coordinator itself: its health, and the description of its routes.

use std::sync::Arc;

use axum::extract::State;
use utoipa::openapi::OpenApi;

use crate::{
    protocol::Health,
    transport::http::{app::App, problem::Problem},
};

/// Whether the coordinator is well: it is, if it answers without `journal`. Anybody may ask.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "service", security(()),
    responses((status = 200, description = "It runs. If it can't write its journal, `journal` has the reason.", body = Health,
        example = json!({ "coordinator": "0d9c5a", "version": "0.1.0", "protocol": 2, "workers": 2, "running": [1], "queued": 0 }))))]
pub(super) async fn health(State(app): State<App>) -> Result<axum::Json<Health>, Problem> {
    Ok(axum::Json(app.operator.health().await?))
}

/// This document. Anybody may ask.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "service", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
pub(super) async fn document(State(app): State<App>) -> axum::Json<Arc<OpenApi>> {
    axum::Json(app.document)
}
