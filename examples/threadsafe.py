"""Work in a thread reports to a channel.

Only the loop's thread may call a manager's methods; other threads use their threadsafe twins, which return a Future.
Send the name of a job to /ws/jobs/{channel}, and watch its progress.
"""

import time
from threading import Thread

from fastws import Listener, Server


class Jobs(Listener):
    def on_message(self, ws, message):
        channel = ws.request.path_parameters["channel"]
        Thread(target=work, args=(channel, message), daemon=True).start()


def work(channel, job):
    for percent in (0, 50, 100):
        jobs.broadcast_threadsafe(channel, {"job": job, "percent": percent}).result()
        time.sleep(0.1)  # blocks, and so must not run on the loop


server = Server()
jobs = server.endpoint("/ws/jobs/{channel}", Jobs())

if __name__ == "__main__":
    server.run()
