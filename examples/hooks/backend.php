<?php // FASTWS_SECRET=whsec_... php -S 127.0.0.1:8500 backend.php
function answer($status, $content) {
    http_response_code($status);
    exit(json_encode($content));
}

$body = file_get_contents('php://input');
[$id, $time] = [$_SERVER['HTTP_WEBHOOK_ID'] ?? '', $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '0'];
$key = base64_decode(substr(getenv('FASTWS_SECRET') ?: answer(500, 'FASTWS_SECRET is not set'), 6));
$signature = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$time.$body", $key, true));
if (!hash_equals($signature, $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') || abs(time() - (int) $time) > 300)
    answer(401, ['error' => ['message' => 'wrong signature']]);

$hook = json_decode($body, true);
$gone = getenv('GONE') ?: '/tmp/gone'; // a table of your database, say
switch ($hook['event']) {
    case 'connect': // the browser's own cookies: session_start() works, too
        $user = $_COOKIE['user'] ?? answer(403, ['error' => ['message' => 'log in first']]);
        answer(200, ['user' => $user, 'data' => ['name' => strtoupper($user)], 'welcome' => "hello $user"]);
    case 'subscribe':
        answer($hook['channel'] == 'secret' ? 403 : 200, ['message' => "all about $hook[channel]"]);
    case 'publish': // "data" is what connect said
        answer(200, ['message' => ['from' => $hook['connection']['data']['name'], 'text' => $hook['message']]]);
    case 'call':
        $sum = $hook['method'] == 'add' ? array_sum($hook['params']) : null;
        answer(200, ['result' => $sum ?? (@file($gone, FILE_IGNORE_NEW_LINES) ?: [])]);
    case 'events':
        foreach ($hook['events'] as $event)
            if ($event['type'] == 'disconnected') file_put_contents($gone, $event['connection']['user'] . "\n", FILE_APPEND);
        answer(200, []);
}
