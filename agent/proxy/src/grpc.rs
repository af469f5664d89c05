//! What gRPC's statuses mean in HTTP.

use http::StatusCode;

/// The HTTP status that a gRPC status stands for (`google/rpc/code.proto`).
pub(crate) fn http_status(grpc: u16) -> StatusCode {
    let status = match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
