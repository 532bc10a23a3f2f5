<?php // What docs/howto/backends.md uses of Laravel, in as many lines as that takes: php -S ... laravel.php, with ROUTES.
namespace Illuminate\Auth\Events {
    class Logout { public function __construct(public $user) {} }
}
namespace Illuminate\Foundation\Http\Middleware {
    class ValidateCsrfToken {}
}
namespace Illuminate\Http {
    class Request {
        private $body;
        public function __construct() { $this->body = file_get_contents('php://input'); }
        public function getContent() { return $this->body; }
        public function header($name, $else = null) { return $_SERVER['HTTP_' . strtr(strtoupper($name), '-', '_')] ?? $else; }
        public function input($name) { return json_decode($this->body, true)[$name] ?? null; }
        public function user() { return isset($_SESSION['user']) ? (object) ['id' => $_SESSION['user']] : null; }
    }
}
namespace Illuminate\Support\Facades {
    class Route {
        public static $routes = [];
        public $guarded = true;
        public function __construct(public $action) {}
        public static function post($path, $action) { return self::$routes["POST $path"] = new self($action); }
        public static function get($path, $action) { return self::$routes["GET $path"] = new self($action); }
        public function withoutMiddleware($name) {
            $this->guarded = $name !== \Illuminate\Foundation\Http\Middleware\ValidateCsrfToken::class;
        }
    }
    class Event {
        public static $listener;
        public static function listen($listener) { self::$listener = $listener; }
    }
    class Log {
        public static function info($line) { error_log($line); }
    }
    class Http {
        private $headers = ['Content-Type: application/json'];
        private $answer;
        public static function withToken($token) {
            $request = new self;
            $request->headers[] = "Authorization: Bearer $token";
            return $request;
        }
        public function timeout($seconds) { return $this; }
        public function post($url, $content) {
            $options = ['method' => 'POST', 'header' => $this->headers, 'content' => json_encode($content)];
            $this->answer = file_get_contents($url, false, stream_context_create(['http' => $options]));
            return $this;
        }
        public function json() { return json_decode($this->answer, true); }
    }
}
namespace {
    use Illuminate\Auth\Events\Logout;
    use Illuminate\Http\Request;
    use Illuminate\Support\Facades\{Event, Route};

    class Answer {
        public $status = 200;
        public $content = [];
        public function json($content, $status = 200) { [$this->content, $this->status] = [$content, $status]; return $this; }
        public function noContent() { $this->status = 204; return $this; }
    }
    class Application {
        public $last = [];
        public function terminating($callback) { $this->last[] = $callback; }
    }
    function env($name) { return getenv($name); }
    function response() { return new Answer; }
    function app() { static $app; return $app ??= new Application; }

    session_start();
    require getenv('ROUTES');
    $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    $answer = null;
    if ($path === '/login') {
        $_SESSION['user'] = $_POST['user'];
    } elseif ($path === '/logout') {
        (Event::$listener)(new Logout((object) ['id' => $_SESSION['user']]));
        session_destroy();
    } elseif ($route = Route::$routes["$_SERVER[REQUEST_METHOD] $path"] ?? Route::$routes["GET $path"] ?? null) {
        $answer = ($route->guarded && $path === '/fastws') ? response()->json([], 419) : ($route->action)(new Request);
    }
    if (session_status() === PHP_SESSION_ACTIVE) session_write_close();
    if ($answer instanceof Answer) {
        http_response_code($answer->status);
        $answer = $answer->content;
    }
    header('Content-Type: application/json');
    if (http_response_code() !== 204) echo json_encode($answer);
    foreach (app()->last as $callback) $callback();
}
