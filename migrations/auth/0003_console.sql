-- The console's own client: public, so its proof is PKCE. It may be changed or deleted at /api/clients/exprsn-console like any
-- other; where the console has another address than its own machine's, its redirect URI is written there.
-- Not 127.0.0.1: the port of that would be free, and another program's on the administrator's machine could ask.
INSERT INTO clients (id, name, secret_digest, auth_method, redirect_uris, post_logout_redirect_uris, grant_types, scope,
                     first_party, client_uri, created_at, updated_at, created_by)
VALUES ('exprsn-console', 'Exprsn Console', NULL, 'none', '["http://localhost:3015/console","https://localhost:3015/console"]',
        '["http://localhost:3015/console","https://localhost:3015/console"]', 'authorization_code refresh_token',
        'openid profile read write update delete admin', 0, NULL, 0, 0, 'config')
ON CONFLICT (id) DO NOTHING;
