# Inside the container, as the stranger. Standard output is what a person would see.
cd
export PATH=/usr/local/bin:/usr/bin:/bin
began=$SECONDS
make run > run.log 2>&1 &
server=$!
until python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:8000/readyz", timeout=5)' 2>/dev/null; do
  if grep -q "The engine did not start" run.log; then cat run.log; tail -n 40 data/logs/server-8000.log; echo "The engine did not start."; exit 1; fi
  kill -0 $server 2>/dev/null || { cat run.log; echo "make run ended by itself."; exit 1; }
  sleep 1
done
echo "make run: ready after $((SECONDS - began)) s, from nothing"
python3 -c 'import urllib.request as u; page = u.urlopen("http://127.0.0.1:8000/", timeout=5).read().decode(); assert "<div id=\"root\">" in page, page'
echo "the page is served"
answer=$(echo "Tell me about Paris." | make --no-print-directory chat)
echo "make chat: $answer"
case "$answer" in "" | *"[error]"*) cat run.log; echo "make chat got no answer."; exit 1 ;; esac
kill -TERM $(pgrep -P $server -f "steersight serve" 2>/dev/null || echo $server)
wait $server || true
echo "stranger-test: all well"
