// Preloaded into Portkey, which would otherwise listen on every address: a benchmark is nobody else's business.
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, host, ...rest) {
  return listen.call(this, port, "127.0.0.1", ...(typeof host === "function" ? [host, ...rest] : rest));
};
