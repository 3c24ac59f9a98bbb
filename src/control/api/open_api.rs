//! The OpenAPI description of the API, made from the table of operations.

use serde_json::{Map, Value, json};

use super::endpoints::WEIGHT_MAX;
use super::operations::{OPERATIONS, Operation};

/// The description (OpenAPI 3.1).
pub(super) fn description() -> Value {
    let mut paths = Map::new();
    for operation in &OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(
                operation.method.as_str().to_lowercase(),
                describe(operation),
            );
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Weir admin API", "version": env!("CARGO_PKG_VERSION") },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let (status, schema) = operation.success;
    let mut responses = Map::new();
    responses.insert(status.to_string(), response(status, schema));
    // Without a token, of another origin, and without the right address.
    for status in [401, 403].iter().chain(operation.failures) {
        responses.insert(status.to_string(), response(*status, Some("Error")));
    }
    let mut described = json!({
        "operationId": format!("{:?}", operation.action),
        "summary": operation.summary,
        "responses": responses,
    });
    let parameters: Vec<_> = names(operation.path).map(parameter).collect();
    if let Some(described) = described.as_object_mut() {
        if !parameters.is_empty() {
            described.insert("parameters".to_owned(), parameters.into());
        }
        if let Some(schema) = operation.body {
            let content = content(schema);
            described.insert(
                "requestBody".to_owned(),
                json!({ "required": true, "content": content }),
            );
        }
    }
    described
}

/// The names in a path.
fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
}

fn parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
}

fn response(status: u16, schema: Option<&str>) -> Value {
    let phrase = hyper::StatusCode::from_u16(status).ok();
    let phrase = phrase.and_then(|status| status.canonical_reason());
    let mut response = json!({ "description": phrase.unwrap_or_default() });
    if let (Some(schema), Some(response)) = (schema, response.as_object_mut()) {
        response.insert("content".to_owned(), content(schema));
    }
    response
}

fn content(schema: &str) -> Value {
    let reference = format!("#/components/schemas/{schema}");
    json!({ "application/json": { "schema": { "$ref": reference } } })
}

fn list_of(schema: &str) -> Value {
    let reference = format!("#/components/schemas/{schema}");
    json!({ "type": "array", "items": { "$ref": reference } })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let weight = || json!({ "type": "integer", "minimum": 0, "maximum": WEIGHT_MAX });
    let state = || json!({ "enum": ["ready", "drain", "maintenance"] });
    let flag = || json!({ "type": "boolean" });
    let persist = || {
        let what = "Keeps the change over reloads and upgrades; a restart forgets it.";
        json!({ "type": "boolean", "default": false, "description": what })
    };
    let endpoint = json!({
        "address": text(), "weight": weight(), "state": state(), "healthy": flag(),
        "ejected": flag(), "failure": text(), "in_flight": number(), "connections": number(),
    });
    let endpoint_keys = [
        "address",
        "weight",
        "state",
        "healthy",
        "ejected",
        "in_flight",
        "connections",
    ];
    let upstream = json!({
        "name": text(), "balance": text(), "endpoints": list_of("Endpoint"),
        "unresolved": { "type": "array", "items":
            object(&["address", "error"], json!({ "address": text(), "error": text() })) },
    });
    let change = json!({
        "upstream": text(), "address": text(), "endpoint": { "enum": ["added", "removed"] },
        "state": state(), "weight": weight(), "persist": flag(),
    });
    let route = json!({
        "name": text(), "line": number(), "hosts": texts(), "paths": texts(),
        "methods": texts(), "policies": texts(),
    });
    let explain = json!({
        "method": text(), "url": text(), "headers": texts(), "client_cert": texts(),
        "client_ip": text(), "claims": texts(), "all": flag(),
    });
    let error = json!({
        "code": text(), "message": text(),
        "diagnostics": { "type": "array", "items": { "type": "object" } },
    });
    json!({
        "Any": {},
        "Change": object(&["upstream", "address", "persist"], change),
        "Changes": list_of("Change"),
        "Endpoint": object(&endpoint_keys, endpoint),
        "EndpointPatch": object(&[], json!({ "state": state(), "weight": weight(), "persist": persist() })),
        "Endpoints": list_of("Endpoint"),
        "Error": object(&["error"], json!({ "error": object(&["code", "message"], error) })),
        "ExplainRequest": object(&["method", "url"], explain),
        "Explanation": object(&["text"], json!({ "text": text() })),
        "NewEndpoint": object(
            &["address"],
            json!({ "address": text(), "weight": weight(), "persist": persist() }),
        ),
        "Reloaded": object(&["epoch", "message"], json!({ "epoch": number(), "message": text() })),
        "Route": object(&["name", "line", "hosts", "paths", "methods", "policies"], route),
        "Routes": list_of("Route"),
        "RunningFile": object(
            &["file", "text"],
            json!({ "file": { "type": ["string", "null"] }, "text": text() }),
        ),
        "Upgraded": object(&["pid", "message"], json!({ "pid": number(), "message": text() })),
        "Upstream": object(&["name", "balance", "endpoints"], upstream),
        "Upstreams": list_of("Upstream"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_to_a_schema() {
        let description = description();
        let schemas = description.pointer("/components/schemas").expect("schemas");
        let text = description.to_string();
        let mut count = 0;
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(schemas.get(name).is_some(), "{name}");
            count += 1;
        }
        assert!(count > 20);
        let patch = "/paths/~1api~1upstreams~1{upstream}~1endpoints~1{address}/patch";
        let patch = description.pointer(patch).expect("the operation");
        assert_eq!(patch.pointer("/parameters/1/name"), Some(&json!("address")));
        assert!(patch.pointer("/responses/415").is_some());
    }
}
