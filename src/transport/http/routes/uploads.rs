//! Reports whose upload broke off: how much of one is kept, and the rest of it. The words are those of "Resumable Uploads for
//! HTTP" (draft-ietf-httpbis-resumable-upload).

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::answer::{malformed, plain};
use crate::{
    ids::{ClientId, JobId, RoundId, WorkerId},
    parameters::Digest,
    report::ReportMetadata,
    transport::{
        self, ReportBody, Request,
        http::{
            api::{
                DIGEST_HEADER, PARTIAL_UPLOAD, REPORT_HEADER, SAFETENSORS, UPLOAD_COMPLETE_HEADER,
                UPLOAD_LENGTH_HEADER, UPLOAD_OFFSET_HEADER,
            },
            content::{digest, parameters_as},
            credentials::{Exchange, Ids, SharedWorker},
            json::json_header,
            openapi::Safetensors,
            problem::Problem,
        },
    },
};

/// Says how much is kept of a report whose upload broke off.
///
/// An upload of the same worker's report that is still open ends, and counts up to this moment. The answer has no body. If its
/// status is not 204, send the whole report: the answer to that says why.
#[utoipa::path(head, path = "/jobs/{job}/rounds/{round}/reports/{client}", operation_id = "get_upload_offset", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("round" = RoundId, Path, description = "The round."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks."),
        ("Fedavg-Digest" = String, Header, description = "Of the whole body: `crc32=` and eight hexadecimal digits.",
            pattern = "^crc32=[0-9a-f]{8}$", example = "crc32=cbf43926")),
    responses((status = 204, description = "So much of it is kept.", headers(
        ("Upload-Offset" = u64, description = "Bytes of the body that are kept: the rest begins there. 0: none. Left out if the report \
            has been accepted."),
        ("Upload-Complete" = String, description = "`?1` if the report has been accepted, otherwise `?0`.")))))]
pub(super) async fn upload_offset(
    SharedWorker(credentials): SharedWorker,
    Ids((job, round, client)): Ids<(JobId, RoundId, ClientId)>,
    exchange: Exchange,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = Request::UploadOffset {
        credentials,
        job,
        round,
        client,
        digest: needed_digest(&headers)?,
    };
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let headers = answer.headers_mut();
    // It changes with every byte that comes.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let is_complete = match exchange.handle(request).await {
        transport::Response::UploadOffset(offset) => {
            headers.insert(UPLOAD_OFFSET_HEADER, HeaderValue::from(offset));
            "?0"
        }
        transport::Response::Accepted => "?1",
        other => return Ok(plain(other)),
    };
    headers.insert(
        UPLOAD_COMPLETE_HEADER,
        HeaderValue::from_static(is_complete),
    );
    Ok(answer)
}

/// Takes the rest of a report whose upload broke off.
///
/// The body is the report's from the byte on that `Upload-Offset` names, to its end. The report is taken if the whole has the
/// digest; all else is as for `PUT`.
#[utoipa::path(patch, path = "/jobs/{job}/rounds/{round}/reports/{client}", operation_id = "send_rest_of_report", tag = "training",
    security(("worker_token" = [])),
    params(
        ("job" = JobId, Path, description = "The job."),
        ("round" = RoundId, Path, description = "The round."),
        ("client" = ClientId, Path, description = "The client."),
        ("Fedavg-Worker" = WorkerId, Header, description = "The worker that asks."),
        ("Fedavg-Report" = String, Header, description = "`ReportMetadata` as JSON in one line of ASCII.",
            example = "{\"base_version\":3,\"examples\":180,\"steps\":3,\"metrics\":{\"train_loss\":0.41}}"),
        ("Fedavg-Digest" = String, Header, description = "Of the whole body: `crc32=` and eight hexadecimal digits.",
            pattern = "^crc32=[0-9a-f]{8}$", example = "crc32=cbf43926"),
        ("Upload-Offset" = u64, Header, description = "Where in the whole body this one begins, as the coordinator said it."),
        ("Upload-Complete" = Option<String>, Header, description = "`?1`: the body goes to the end of the report. Nothing else is taken.",
            pattern = "^\\?1$", example = "?1"),
        ("Upload-Length" = Option<u64>, Header, description = "Bytes of the whole body.")),
    // Generators of clients know no `application/partial-upload`.
    request_body(content = Safetensors, content_type = "application/octet-stream",
        description = "The rest of the safetensors bytes. `application/partial-upload`, the draft's media type, is taken as well."),
    responses((status = 204, description = "Accepted, now or by an earlier request.")))]
pub(super) async fn send_rest(
    SharedWorker(credentials): SharedWorker,
    Ids((job, round, client)): Ids<(JobId, RoundId, ClientId)>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let _upload = exchange.upload(credentials.worker)?;
    let metadata: ReportMetadata = json_header(&headers, REPORT_HEADER)?;
    let digest = needed_digest(&headers)?;
    let offset = integer(&headers, UPLOAD_OFFSET_HEADER)?;
    let Some(offset) = offset.filter(|offset| *offset > 0) else {
        return Err(malformed(
            "Upload-Offset must be a number from 1; a report from its beginning is sent with PUT",
        ));
    };
    // A part that is not the last would leave the report open without a sender.
    let complete = headers.get(UPLOAD_COMPLETE_HEADER);
    if complete.is_some_and(|complete| complete != "?1") {
        return Err(malformed(
            "Upload-Complete must be ?1: send all of the rest",
        ));
    }
    let limit = exchange.app.config.max_body.saturating_sub(offset);
    let (bytes, length) = parameters_as(&[PARTIAL_UPLOAD, SAFETENSORS], &headers, body, limit)?;
    let whole = integer(&headers, UPLOAD_LENGTH_HEADER)?;
    if let (Some(whole), Some(length)) = (whole, length)
        && offset.checked_add(length) != Some(whole)
    {
        let detail = format!(
            "Upload-Length is {whole}, and {length} bytes from {offset} on do not end there"
        );
        return Err(malformed(detail));
    }
    let request = Request::Report {
        credentials,
        job,
        round,
        client,
        metadata,
        body: ReportBody::Rest {
            bytes,
            length,
            digest,
            offset,
        },
    };
    Ok(plain(exchange.handle(request).await))
}

/// The digest of the whole body: without it, a part could be another report's.
fn needed_digest(headers: &HeaderMap) -> Result<Digest, Problem> {
    digest(headers)?.ok_or_else(|| malformed(format!("the header {DIGEST_HEADER} is missing")))
}

/// A number of bytes in a header, if it is there: an integer of "Structured Field Values for HTTP" (RFC 9651).
pub(in crate::transport::http) fn integer(
    headers: &HeaderMap,
    name: &'static str,
) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let is_integer =
        (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_integer);
    let number = number.ok_or_else(|| malformed(format!("the header {name} must be a number")))?;
    Ok(Some(number))
}
