"""One model in a child process, shared by all who use it: `hosted_queue` here, `queue_server` there."""
