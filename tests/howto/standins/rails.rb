# What docs/howto/backends.md uses of Rails, in as many lines as that takes: ruby rails.rb LIB CONTROLLER PORT
require "json"
require "securerandom"
require "socket"
require "uri"

SESSIONS = {}
Request = Struct.new(:headers, :raw_post)
User = Struct.new(:id)

class ApplicationController
  STATUSES = { no_content: 204, forbidden: 403, unauthorized: 401 }
  attr_reader :answer, :request

  def self.skip_forgery_protection = @skips = true
  def self.before_action(name) = (@before ||= []) << name
  def self.skips? = @skips
  def self.before = @before || []

  def initialize(request, user)
    @request, @user = request, user
  end

  def params = @params ||= JSON.parse(request.raw_post, symbolize_names: true)
  def current_user = @user && User.new(@user)
  def logger = self
  def info(line) = warn(line)
  def head(status) = @answer = [STATUSES.fetch(status), ""]
  def render(json:, status: nil) = @answer = [STATUSES.fetch(status, 200), json.to_json]

  def process(action)
    raise "no protection" unless self.class.skips?
    self.class.before.each { |name| send(name) unless answer }
    send(action) unless answer
    answer
  end
end

require ARGV[0]
require ARGV[1]

def serve(path, headers, body)
  id = headers["cookie"].to_s[/sid=(\w+)/, 1]
  case path
  when "/fastws" then FastwsController.new(Request.new(headers, body), SESSIONS[id]).process(:create)
  when "/login"
    SESSIONS[fresh = SecureRandom.hex] = URI.decode_www_form(body).to_h["user"]
    [200, "{}", "Set-Cookie: sid=#{fresh}; Path=/\r\n"]
  when "/order" then [200, Fastws.call("broadcast", channel: "orders", message: { order: 7 }).to_json]
  when "/logout" then [200, Fastws.call("close", users: [SESSIONS.delete(id)]).to_json]
  end
end

server = TCPServer.new("127.0.0.1", ARGV[2].to_i)
loop do
  Thread.new(server.accept) do |client|
    path = client.gets.to_s.split[1]
    headers = {}
    while (line = client.gets.to_s.chomp) != ""
      name, value = line.split(": ", 2)
      headers[name.downcase] = value
    end
    status, content, more = serve(path, headers, client.read(headers["content-length"].to_i))
    client.write("HTTP/1.1 #{status} x\r\nContent-Length: #{content.bytesize}\r\nConnection: close\r\n#{more}\r\n#{content}")
    client.close
  end
end
